import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.recording import LARGEST_KEPT, Kind, Recorder, read_recording, recordings
from personalization.errors import UserError


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_what_was_recorded_is_read_again(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("recorded") / "hall.recording"
    recorder = Recorder(path, form="connections", server="a:1")
    for number, part in enumerate(parts):
        recorder.up(part, channel=number)
    recorder.close()
    beginning, *entries = read_recording(path)
    assert beginning.facts() == {"form": "connections", "server": "a:1"}
    assert [(entry.kind, entry.channel, entry.data) for entry in entries] == [
        (Kind.UP, number, part) for number, part in enumerate(parts)
    ]


def test_only_its_owner_can_read_it_and_it_only_grows(tmp_path):
    folder = tmp_path / "recording"
    for number in range(2):
        recorder = Recorder(folder / "hall.recording", form="messages")
        recorder.up(b"%d" % number, channel=0)
        recorder.close()
    (path,) = recordings(folder)
    assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert [entry.data for entry in read_recording(path) if entry.kind is Kind.UP] == [b"0", b"1"]


def test_what_comes_down_is_kept_by_its_hash_if_it_is_large(tmp_path):
    path = tmp_path / "hall.recording"
    recorder = Recorder(path)
    for size in (10, LARGEST_KEPT + 1):
        recorder.down(bytes(size), channel=2, path="/x")
    recorder.close()
    (small, body), (large, nothing) = [entry.down() for entry in read_recording(path) if entry.kind is Kind.DOWN]
    assert (small, body) == ({"bytes": 10, "path": "/x"}, bytes(10))
    assert (large["bytes"], len(large["sha256"]), nothing) == (LARGEST_KEPT + 1, 64, b"")
    assert path.stat().st_size < 1000


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_an_unfinished_entry_is_told_and_cut_off_when_it_goes_on(tmp_path, cut):
    path = tmp_path / "hall.recording"
    recorder = Recorder(path)
    recorder.up(b"whole", channel=1)
    recorder.up(b"lost by a power cut", channel=1)
    recorder.close()
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match="not a whole entry"):
        list(read_recording(path))
    Recorder(path).close()
    assert [entry.data for entry in read_recording(path) if entry.kind is Kind.UP] == [b"whole"]


@pytest.mark.parametrize("tail", [b"x", b"Zhello, these are bytes that no recorder wrote"])
def test_bytes_that_no_recorder_wrote_are_told(tmp_path, tail):
    path = tmp_path / "hall.recording"
    Recorder(path).close()
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(UserError, match="damaged at byte"):
        list(read_recording(path))


def test_a_size_is_believed_once_so_much_is_there(tmp_path):
    path = tmp_path / "hall.recording"
    Recorder(path).close()
    path.write_bytes(path.read_bytes() + struct.pack("<cIdI", b"U", 1, 0.0, (1 << 32) - 1) + b"few")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="damaged at byte"):
            list(read_recording(path))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("entry", [(b"D", b"[]"), (b"D", b"[" * 20_000), (b"B", b"1"), (b"C", b"\xff")])
def test_an_entry_that_says_nothing_is_told(tmp_path, entry):
    kind, data = entry
    path = tmp_path / "hall.recording"
    Recorder(path).close()
    path.write_bytes(path.read_bytes() + struct.pack("<cIdI", kind, 1, 0.0, len(data)) + data)
    with pytest.raises(UserError, match="damaged at byte"):
        list(read_recording(path))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "hall.recording"
    path.write_bytes(b"something else")
    for attempt in (lambda: list(read_recording(path)), lambda: Recorder(path)):
        with pytest.raises(UserError, match="not a recording"):
            attempt()
