"""Which key a state is opened with, and what is refused."""

import os
from pathlib import Path

import pytest

from client.entries import RECORD
from client.state import ClientState
from client.vault.keys import create_key_file
from deployment.join.vault_choice import VaultChoice, choose_vault, make_missing_key, open_state
from personalization.errors import UserError

KEY = "ab" * 32
NONE = VaultChoice(source="none")


def file_choice(tmp_path: Path) -> VaultChoice:
    return VaultChoice(source="file", name=str(tmp_path / "keys" / "a.key"))


def encrypted(tmp_path: Path) -> tuple[Path, VaultChoice]:
    """A state with one entry, and its key."""
    state, choice = tmp_path / "state", file_choice(tmp_path)
    assert make_missing_key(state, choice)
    open_state(state, choice, {}).write(RECORD, b'{"rounds": {}}')
    return state, choice


def test_options_exclude_each_other(tmp_path):
    assert choose_vault(key_file=None, keyring=None, environment=False) is None
    assert choose_vault(key_file=None, keyring="a", environment=False) == VaultChoice(source="keyring", name="a")
    found = choose_vault(key_file=Path("k"), keyring=None, environment=False)
    assert found == VaultChoice(source="file", name=str(Path("k").absolute()))
    with pytest.raises(UserError, match="choose one"):
        choose_vault(key_file=tmp_path, keyring=None, environment=False, none=True)


def test_only_the_chosen_key_counts(tmp_path):
    own = {"FEDSIEVE_VAULT_KEY": KEY, "FEDSIEVE_VAULT_KEY_OLD": KEY, "HOME": "/h"}
    for choice in (NONE, file_choice(tmp_path)):
        assert choice.environment(own) == {"HOME": "/h"}
    assert NONE.access(own) is None
    environment = VaultChoice(source="environment")
    assert environment.environment(own) == own
    assert environment.access(own) is not None
    with pytest.raises(UserError, match="not set"):
        environment.access({})


def test_a_key_is_made_once_and_for_its_user_only(tmp_path):
    state, choice = encrypted(tmp_path)
    path = Path(choice.name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    before = path.read_bytes()
    assert not make_missing_key(state, choice)
    assert path.read_bytes() == before
    assert not make_missing_key(state, NONE)


def test_a_key_that_was_lost_is_not_made_anew(tmp_path):
    state, choice = encrypted(tmp_path)
    Path(choice.name).unlink()
    assert not make_missing_key(state, choice)
    with pytest.raises(UserError, match="key is missing; put it back"):
        open_state(state, choice, {})
    (state / "vault").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="its counter is there"):
        make_missing_key(state, choice)


def test_another_key_an_open_key_and_no_key_are_refused(tmp_path):
    state, choice = encrypted(tmp_path)
    with pytest.raises(UserError, match="no key was given"):
        open_state(state, NONE, {})
    with pytest.raises(UserError, match="is not this vault's key"):
        open_state(state, VaultChoice(source="environment"), {"FEDSIEVE_VAULT_KEY": KEY})
    os.chmod(choice.name, 0o640)
    with pytest.raises(UserError, match="others can read"):
        open_state(state, choice, {})


def test_a_key_inside_the_state_protects_nothing(tmp_path):
    create_key_file(tmp_path / "key")
    with pytest.raises(UserError, match="protects nothing"):
        open_state(tmp_path, VaultChoice(source="file", name=str(tmp_path / "key")), {})


def test_without_a_key_files_lie_in_the_open(tmp_path):
    open_state(tmp_path / "s", NONE, {"FEDSIEVE_VAULT_KEY": KEY}).write(RECORD, b"{}")
    assert ClientState(tmp_path / "s").read(RECORD) == b"{}"
