import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import fedsieve


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(fedsieve.app, ["enroll", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "fleet"
    assert run(folder, "--server", "edge.example.org:9000", "--node", "hall", "--node", "attic").exit_code == 0
    return folder


def test_it_says_what_there_is_and_what_to_do_next(folder):
    shown = run(folder)
    assert shown.exit_code == 0
    for words in (
        "edge.example.org:9000",
        str(folder / "nodes" / "hall.json"),
        "chmod 600",
    ):
        assert words in shown.stdout
    assert "warning" not in shown.stdout


def test_it_warns_before_a_certificate_runs_out(folder):
    shown = run(folder, "--renew", "server", "--days", "10")
    assert "warning: server.crt is valid for" in shown.stdout
    assert f"fedsieve enroll {folder} --renew server" in shown.stdout


def test_json_holds_no_secret(folder):
    shown = run(folder, "--revoke", "hall", "--json")
    found = json.loads(shown.stdout)
    assert [node["name"] for node in found["nodes"] if node["revoked"]] == ["hall"]
    assert found["server"] == "edge.example.org:9000"
    secret = json.loads((folder / "signing-key.json").read_text())["private_key"]
    assert secret not in shown.output
    assert "PRIVATE" not in shown.output
    assert "revoked" in run(folder).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--node", "Hall"], "node name"),
        (["--revoke", "cellar"], "no such node"),
        (["--renew", "cellar"], "expected authority, server or one of"),
        (["--server", "other.org"], "--renew server"),
        (["--days", "0"], "--days"),
        (["--model", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, arguments, words):
    result = run(folder, *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert result.stdout == ""


def test_a_key_that_others_can_read_is_one_line_and_exit_code_2(folder):
    (folder / "signing-key.json").chmod(0o644)
    result = run(folder)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert "chmod 600" in line


def test_no_fleet_here_says_how_to_make_one(tmp_path):
    result = run(tmp_path / "none")
    assert result.exit_code == 2
    assert "--server HOST:PORT" in result.stderr
    assert not (tmp_path / "none").exists()
