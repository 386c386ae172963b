import pytest
from joining import node_file

from client.node_file import read_node_file
from deployment.join.checks import claim_state, joined
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
