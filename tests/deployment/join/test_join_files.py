"""The files that a SuperNode is started with, and its log."""

import os
import tomllib
from pathlib import Path

from joining import any_node

from deployment.join.process import SuperNodeSettings, open_log, remove_credentials, write_credentials


def test_the_node_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    node = any_node(tmp_path, 9)
    config: dict[str, str | float] = {"data-dir": 'a "b" \\ c\u00e9\U0001f600 d', "budget": 0.25}
    state = tmp_path / "state"
    state.mkdir()
    write_credentials(SuperNodeSettings(node=node, state=state, home=tmp_path, node_config=config, environment={}))
    assert tomllib.loads((state / "node-config.toml").read_text()) == config
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}
    assert (state / "node.key").read_text() == node.private_key
    remove_credentials(state)
    assert not list(state.iterdir())


def test_a_log_is_the_users_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "supernode.log"
    with open_log(path) as log:
        log.write("one\n")
    with open_log(path) as log:
        log.write("two\n")
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600
    os.truncate(path, 2 << 20)
    with open_log(path) as log:
        log.write("three\n")
    assert path.read_text() == "three\n"
    assert (tmp_path / "supernode.log.1").stat().st_size == 2 << 20


def test_a_log_that_cannot_be_kept_is_none(tmp_path: Path) -> None:
    with open_log(tmp_path / "none" / "supernode.log") as log:
        assert log.write("line\n") == 5
