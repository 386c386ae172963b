"""What a device's data are told to be before anything is started, and what is refused."""

import json

import numpy as np
import pytest
from joining import write_images
from tiny_text import write_speakers

from deployment.join.data import DataFound, check_data
from personalization.errors import UserError


def test_images_are_counted(tmp_path):
    assert check_data(write_images(tmp_path / "flat", 3)) == DataFound("image", 3)
    write_images(tmp_path / "classes" / "a", 2)
    write_images(tmp_path / "classes" / "b", 70)
    assert check_data(tmp_path / "classes").count == 72
    np.savez(tmp_path / "images.npz", images=np.zeros((5, 8, 8), dtype=np.uint8))
    assert check_data(tmp_path / "images.npz").count == 5


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


def test_text_is_counted_and_read_whole(tmp_path):
    folder = write_speakers(tmp_path, speakers=1) / "speaker-0"
    (folder / "notes.jsonl").write_text(json.dumps({"text": "gold"}) + "\n")
    found = check_data(folder)
    assert found == DataFound("text", 5)
    assert found.describe() == "5 files of text"
    assert DataFound("image", 1).describe() == "1 image"
    (folder / "last.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(UserError, match=r"last\.txt: not UTF-8 \(byte 2\)"):
        check_data(folder)


def test_a_readme_beside_images_is_passed_over(tmp_path):
    folder = write_images(tmp_path / "flat", 3)
    (folder / "readme.txt").write_bytes(b"\xff")
    assert check_data(folder) == DataFound("image", 3)


def test_text_that_no_plan_could_be_answered_with_is_refused(tmp_path):
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(UserError, match="no text in its files"):
        check_data(tmp_path)
    (tmp_path / "lines.jsonl").write_text('{"words": "gold"}')
    with pytest.raises(UserError, match=r"lines\.jsonl, line 1: no text"):
        check_data(tmp_path)
