import sys
from types import SimpleNamespace

import pytest
from vaults import Place

from client.vault import vault as vault_module
from client.vault.access import find_access
from client.vault.keys import EnvironmentKey, KeyFile, KeyringKey, create_key_file
from client.vault.sealing import VaultKey
from personalization.errors import UserError


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class FakeKeyring:
    """What the package `keyring` offers, in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.errors = SimpleNamespace(KeyringError=type("KeyringError", (Exception,), {}))
        self.locked = False

    def get_password(self, service: str, name: str) -> str | None:
        if self.locked:
            raise self.errors.KeyringError("it is\nlocked")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        self.kept[service, name] = text

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]


@pytest.fixture
def keyring(monkeypatch):
    fake = FakeKeyring()
    monkeypatch.setitem(sys.modules, "keyring", fake)
    return fake


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o777])
def test_a_key_that_others_can_read_or_change_is_refused(place, mode):
    place.key_file.chmod(mode)
    with pytest.raises(UserError, match=r"chmod 600") as raised:
        place.open()
    assert place.key_file.read_text().strip() not in str(raised.value)


def test_a_key_of_another_user_is_refused(place, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: place.key_file.stat().st_uid + 1)
    if place.key_file.stat().st_uid == 0:
        assert KeyFile(place.key_file).ring()  # what the administrator owns, as a service's credentials, is fine
    else:
        with pytest.raises(UserError, match="another user"):
            KeyFile(place.key_file).ring()


def test_a_lost_or_broken_key_file_says_what_to_do(place):
    place.key_file.write_text("not a key")
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        place.open()
    place.key_file.unlink()
    with pytest.raises(UserError, match="missing; put it back"):
        place.open()
    place.key_file.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        place.open()


def test_a_key_file_is_made_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "key"
    create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    with pytest.raises(UserError, match="never overwritten"):
        create_key_file(path)
    assert path.read_text() == text
    with pytest.raises(UserError, match="not written"):
        create_key_file(tmp_path / "no" / "key")


def test_the_node_configuration_comes_before_the_environment(place, keyring):
    texts = [VaultKey.generate().to_text() for _ in range(2)]
    keyring.kept["fedsieve", "node"] = texts[0]
    environment = {"FEDSIEVE_VAULT_KEY": texts[1]}
    own = {"vault-key-file": str(place.key_file), "vault-keyring": "node"}
    found = [
        find_access(own, environment),
        find_access({"vault-keyring": "node"}, environment),
        find_access({}, environment),
    ]
    assert [access.keys.ring()[0].to_text() for access in found] == [place.key_file.read_text().strip(), *texts]
    assert [access.counter for access in found] == [place.keys / "key.counter", None, None]
    assert find_access({}, {}) is None
    assert find_access({"vault-counter-file": "/c"}, environment).counter.name == "c"


def test_a_key_file_keeps_the_old_key_until_the_new_one_takes_over(place):
    source = KeyFile(place.key_file)
    (old,) = source.ring()
    source.promote()
    assert source.ring() == (old,)
    new = source.stage()
    assert source.ring() == (old, new)
    assert (place.keys / "key.next").stat().st_mode & 0o777 == 0o600
    source.promote()
    assert source.ring() == (new,)
    assert [path.name for path in place.keys.iterdir()] == ["key"]


def test_keys_in_the_environment(place):
    texts = [VaultKey.generate().to_text() for _ in range(2)]
    with pytest.raises(UserError, match="FEDSIEVE_VAULT_KEY_OLD"):
        EnvironmentKey({"FEDSIEVE_VAULT_KEY": texts[0]}).stage()
    both = EnvironmentKey({"FEDSIEVE_VAULT_KEY": texts[0], "FEDSIEVE_VAULT_KEY_OLD": texts[1]})
    assert [key.to_text() for key in both.ring()] == texts
    assert both.stage() == both.ring()[0]
    with pytest.raises(UserError, match="FEDSIEVE_VAULT_KEY: not a vault key"):
        EnvironmentKey({"FEDSIEVE_VAULT_KEY": "x"}).ring()


def test_keys_in_the_keyring(place, keyring):
    source = KeyringKey("node")
    with pytest.raises(UserError, match="keyring set fedsieve node"):
        source.ring()
    keyring.kept["fedsieve", "node"] = VaultKey.generate().to_text()
    (old,) = source.ring()
    new = source.stage()
    assert source.ring() == (old, new)
    source.promote()
    assert source.ring() == (new,)
    keyring.locked = True
    with pytest.raises(UserError, match="cannot be used: it is locked"):
        source.ring()


def test_the_keyring_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UserError, match="needs the package keyring"):
        find_access({"vault-keyring": "node"}, {})


@pytest.mark.parametrize("kind", ["file", "environment", "keyring"])
def test_after_a_change_of_keys_the_old_key_opens_nothing(place, keyring, kind):
    old, new = place.key_file.read_text().strip(), VaultKey.generate().to_text()
    keyring.kept["fedsieve", "node"] = old
    own = {"file": {"vault-key-file": str(place.key_file)}, "keyring": {"vault-keyring": "node"}}.get(kind, {})
    place.open(find_access(own, {"FEDSIEVE_VAULT_KEY": old})).change({"a": b"1", "b": b"2"})
    place.open(find_access(own, {"FEDSIEVE_VAULT_KEY": new, "FEDSIEVE_VAULT_KEY_OLD": old})).reseal()
    vault = place.open(find_access(own, {"FEDSIEVE_VAULT_KEY": new}))
    assert {name: vault.read(name) for name in vault.names()} == {"a": b"1", "b": b"2"}
    with pytest.raises(UserError, match="not this vault's key"):
        place.open(find_access({}, {"FEDSIEVE_VAULT_KEY": old}))
    assert place.lines == []


def test_a_change_of_keys_gives_up_damaged_entries_only(place):
    place.open().change({"a": b"1", "b": b"2"})
    place.entry_file("a").write_bytes(b"torn")
    place.open().reseal()
    assert len(place.lines) == 1
    assert place.contents() == {"b": b"2"}


def test_an_empty_vault_can_change_its_key(place):
    before = place.key_file.read_text()
    place.open().reseal()
    assert place.key_file.read_text() != before
    place.open().change({"a": b"1"})
    assert place.contents() == {"a": b"1"}


def test_a_change_of_keys_after_an_interrupted_one_loses_no_key(place, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    place.open().change({"a": b"1"})
    with monkeypatch.context() as patch:
        patch.setattr(KeyFile, "promote", fail)  # everything is encrypted with the new key, which is not in its place
        with pytest.raises(OSError, match="No space"):
            place.open().reseal()
    assert place.contents() == {"a": b"1"}
    with monkeypatch.context() as patch:
        patch.setattr(vault_module, "write_atomically", fail)
        with pytest.raises(OSError, match="No space"):
            place.open().reseal()
    assert place.contents() == {"a": b"1"}
    place.open().reseal()
    assert place.contents() == {"a": b"1"}
    assert place.lines == []
