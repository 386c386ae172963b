import numpy as np
import pytest
from joining import node_file, write_images

from client.node_file import read_node_file
from deployment.join.checks import check_data, claim_state, joined
from deployment.join.layout import OWNER, is_state
from personalization.errors import UserError


def test_a_state_belongs_to_one_node(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    hall = read_node_file(node_file(tmp_path / "one"))
    owner = claim_state(state, hall)
    assert is_state(state)
    assert not owner.online
    assert claim_state(state, hall) == owner
    assert claim_state(state, hall).with_online(True, state) == claim_state(state, hall)
    for other in (node_file(tmp_path / "two"), node_file(tmp_path / "one", "attic")):
        with pytest.raises(UserError, match=f"the state of hall in fleet {hall.fleet}"):
            claim_state(state, read_node_file(other))
    (state / OWNER).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        claim_state(state, hall)


def test_one_join_for_each_state(tmp_path):
    with joined(tmp_path), pytest.raises(UserError, match="another fedsieve join"), joined(tmp_path):
        pass
    with joined(tmp_path):
        pass


def test_images_are_counted(tmp_path):
    assert check_data(write_images(tmp_path / "flat", 3)) == 3
    write_images(tmp_path / "classes" / "a", 2)
    write_images(tmp_path / "classes" / "b", 70)
    assert check_data(tmp_path / "classes") == 72
    np.savez(tmp_path / "images.npz", images=np.zeros((5, 8, 8), dtype=np.uint8))
    assert check_data(tmp_path / "images.npz") == 5


def test_data_that_no_plan_could_be_answered_with_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such data folder"):
        check_data(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images in it"):
        check_data(tmp_path / "empty")
    broken = write_images(tmp_path / "broken", 1)
    (broken / "x.png").write_text("no image")
    with pytest.raises(UserError, match=r"x\.png: not an image"):
        check_data(broken)
    (broken / "folder").mkdir()
    with pytest.raises(UserError, match="images beside folders"):
        check_data(broken)
    np.savez(tmp_path / "wrong.npz", labels=np.zeros(3))
    with pytest.raises(UserError, match="no array images"):
        check_data(tmp_path / "wrong.npz")
