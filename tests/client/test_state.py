import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client.settings import derive_seed
from client.state import ClientState
from personalization.sensing.probes import ProbeSamples
from personalization.wire.codes import ClientError, ClientFailure

DATA = bytes(32)


def mode(path) -> int:
    return path.stat().st_mode & 0o777


def test_only_the_owner_can_read(tmp_path):
    state = ClientState(tmp_path / "a" / "b")
    state.save_samples(1, ProbeSamples(np.eye(2), np.ones(2)), data=DATA)
    state.add_record(1, {"evaluations": 2})
    assert mode(state.folder) == 0o700
    assert mode(state.path("samples")) == 0o700
    assert {mode(p) for p in state.folder.rglob("*") if p.is_file()} == {0o600}


def test_samples_of_the_last_plan_come_back_and_a_second_attempt_replaces_the_first(tmp_path):
    state = ClientState(tmp_path)
    assert state.load_samples(9, 3, data=DATA) is None
    for attempt in range(2):
        state.save_samples(1, ProbeSamples(np.eye(3)[:1], np.array([0.5])), data=DATA)
        state.save_samples(3, ProbeSamples(np.eye(3)[:2], np.array([1.0, 2.0]) + attempt), data=DATA)
    found = state.load_samples(3, 3, data=DATA)
    assert (found.design.tolist(), found.measurements.tolist()) == ([[1, 0, 0]], [0.5])
    assert state.load_samples(4, 3, data=DATA).measurements.tolist() == [2.0, 3.0]
    assert state.load_samples(4, 99, data=DATA) is None


def test_samples_measured_on_other_data_do_not_come_back(tmp_path):
    state = ClientState(tmp_path)
    state.save_samples(1, ProbeSamples(np.eye(3)[:1], np.array([0.5])), data=DATA)
    assert state.load_samples(2, 3, data=bytes([1]) * 32) is None
    assert state.load_samples(2, 3, data=DATA) is not None


def test_samples_do_not_pile_up(tmp_path):
    state = ClientState(tmp_path)
    for version in range(1, 30):
        state.save_samples(version, ProbeSamples(np.eye(2)[:1], np.array([float(version)])), data=DATA)
    assert state.load_samples(99, 2, data=DATA).measurements.tolist() == [29.0]
    assert state.load_samples(29, 2, data=DATA).measurements.tolist() == [28.0]
    assert len(list(state.path("samples").iterdir())) == 3


def test_a_record_replaces_its_own_version_and_what_came_after(tmp_path):
    state = ClientState(tmp_path)
    for version in (1, 2, 3, 2):
        state.add_record(version, {"n": version})
    assert set(state.record()["rounds"]) == {"1", "2"}


def test_a_full_disk_leaves_what_stood_there(tmp_path, monkeypatch):
    state = ClientState(tmp_path)
    state.write("x", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.write("x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert state.path("x").read_bytes() == b"old"


def test_nodes_get_directories_of_their_own(tmp_path):
    def folder(own, run):
        return ClientState.of(Context(1, 1, own, RecordDict(), run)).folder

    assert folder({"state-dir": str(tmp_path / "s")}, {"out-dir": "/never"}) == tmp_path / "s"
    assert folder({"partition-id": 3}, {"out-dir": str(tmp_path)}) == tmp_path / "clients" / "client-3"
    with pytest.raises(ClientError) as raised:
        folder({}, {"out-dir": str(tmp_path)})
    assert raised.value.code is ClientFailure.STATE_UNWRITABLE


def test_seeds_differ_by_client_and_plan_and_by_nothing_else():
    seeds = {derive_seed(s, c, v) for s in (0, 1) for c in ("1", "2") for v in (1, 2)}
    assert len(seeds) == 8
    assert derive_seed(0, "1", 1) == derive_seed(0, "1", 1) < 2**31


@pytest.mark.parametrize(
    "damaged", [b"[]", b"{}", b'{"rounds": 1}', b'{"rounds": {"x": {}}}', b'{"rounds": {"1": 2}}', b"[" * 20_000]
)
def test_a_record_that_is_none_begins_anew(tmp_path, damaged):
    state = ClientState(tmp_path)
    state.write("record.json", damaged)
    state.add_record(4, {"n": 4})
    assert state.record() == {"rounds": {"4": {"n": 4}}}
