import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.command import Enrolment, enroll

ROOT = Path(__file__).parents[3]


def serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedsieve", "serve", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert all(text in lines[0] for text in texts)


def test_help_speaks_to_a_newcomer():
    done = serve("--help")
    assert done.returncode == 0
    for text in ("--every", "6h", "--no-status", "until SIGTERM"):
        assert text in done.stdout


def test_mistakes_are_one_line_and_nothing_is_made(tmp_path):
    assert_refused(serve(tmp_path / "none", "--model", "m"), "no fleet here", "fedsieve enroll")
    fleet = tmp_path / "fleet"
    enroll(fleet, Enrolment(server="localhost:21470"))
    own = (fleet, "--model", tmp_path / "none", "--no-status", "--host", "127.0.0.1", "--superlink-port", 21471)
    assert_refused(serve(*own, "--every", "6x"), "--every 6x", "6h")
    assert_refused(serve(*own, "--strategy", "mediam"), "mediam")
    assert_refused(serve(*own, "--vocabulary", "-2"), "a vocabulary of -2 tokens: expected 0 or more")
    assert_refused(serve(*own, "--vocabulary", "-1"), "shares bytes", "budget is of weights", "--budget-kind bytes")
    (fleet / "signing-key.json").chmod(0o640)
    assert_refused(serve(*own), "signing-key.json", "chmod 600")
    assert not (tmp_path / "fleet-state").exists()


def test_a_model_that_cannot_be_read_is_named(tmp_path):
    enroll(tmp_path / "fleet", Enrolment(server="localhost:21470"))
    done = serve(
        tmp_path / "fleet",
        "--model",
        tmp_path / "none",
        "--no-status",
        "--host",
        "127.0.0.1",
        "--superlink-port",
        21471,
    )
    assert_refused(done, str(tmp_path / "none"))


@pytest.mark.parametrize("unit", ["fedsieve-serve.service"])
def test_the_unit_calls_options_that_there_are_and_holds_no_secret(unit):
    text = (ROOT / "deploy" / unit).read_text()
    options = [
        word for word in text.split() if word.startswith("--") and word not in ("--system", "--home-dir", "--now")
    ]
    helped = serve("--help").stdout
    assert options
    for option in options:
        assert option.strip('"') in helped
    assert "key" not in text.lower()
