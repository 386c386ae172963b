import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.node_file import parse_verify_key
from personalization.errors import UserError
from personalization.system.files import write_atomically
from server.signing_key import SigningKey, next_series, read_signing_key


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "signing-key.json"
    write_atomically(path, SigningKey("fleet", Ed25519PrivateKey.generate()).to_json())
    return path


def test_a_key_survives_its_file_and_devices_can_check_what_it_signs(path):
    key = read_signing_key(path)
    assert key.fleet == "fleet"
    parse_verify_key(key.verify_key).verify(key.private_key.sign(b"x"), b"x")
    assert key.to_json() == path.read_bytes()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"format": 9}', b'{"format": 1, "fleet": "a", "private_key": "AAAA"}']
)
def test_a_damaged_key_is_refused(path, raw):
    path.write_bytes(raw)
    with pytest.raises(UserError, match="not a plan-signing key"):
        read_signing_key(path)


def test_a_key_that_is_missing_or_open_to_others_is_refused(path):
    path.chmod(0o604)
    with pytest.raises(UserError, match="chmod 600"):
        read_signing_key(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        read_signing_key(path)


def test_runs_are_numbered_upwards_though_the_clock_is_set_back_or_the_note_is_lost(path, monkeypatch):
    clock = iter([5_000_000_000, 1_000_000_000, 1_000_000_000, 6_000_000_000])
    monkeypatch.setattr("time.time_ns", lambda: next(clock))
    found = [next_series(path) for _ in range(3)]
    path.with_suffix(".series").write_text("damaged")
    found.append(next_series(path))
    assert found == [5000, 5001, 5002, 6000]
    assert path.with_suffix(".series").stat().st_mode & 0o777 == 0o600
