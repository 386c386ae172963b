import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from flwr.supernode.cli.flwr_clientapp import _parse_args_run_flwr_clientapp

from client.launcher import COMMAND, environment_with_launcher
from client.process import parser
from personalization.system.allocator import ENVIRONMENT


def test_it_takes_the_options_that_flowers_own_command_takes():
    def options(source):
        return {(*a.option_strings, a.dest, a.default, a.required) for a in source._actions}

    assert options(parser()) == options(_parse_args_run_flwr_clientapp())


def test_the_command_is_found_first_and_is_closed_to_others(tmp_path):
    folder = tmp_path / "a folder" / "bin"
    environment = environment_with_launcher(folder, os.environ)
    again = environment_with_launcher(folder, environment)
    assert again["PATH"].split(os.pathsep)[0] == str(folder)
    assert {**environment, "PATH": ""} == {**ENVIRONMENT, **os.environ, "PATH": ""}
    assert [path.name for path in folder.iterdir()] == [COMMAND]
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((folder / COMMAND).stat().st_mode) == 0o700


def test_the_process_imports_neither_database_nor_anything_of_ours(tmp_path):
    environment = environment_with_launcher(tmp_path, os.environ) | {"PYTHONPROFILEIMPORTTIME": "1"}
    # An empty token ends it after its imports, before its first request.
    done = subprocess.run([COMMAND, "--token", " ", "--insecure"], env=environment, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "flwr" in imported
    assert "does not contain a token" in done.stderr
    assert not imported & {"sqlalchemy", "alembic", "torch", "client", "personalization", "strategies", "data", "state"}


_TOLD_TO_END = """
import os, signal, sys
sys.path.insert(0, {root!r})
from flwr.supercore.telemetry import EventType
from flwr.supernode.runtime import run_clientapp as runtime
from client.process import _end_at_once_when_told
{replace}
tell = lambda: print("told the SuperNode")
runtime.register_signal_handlers(EventType.FLWR_CLIENTAPP_RUN_LEAVE, exit_handlers=[tell])
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_is_told_to_end_says_nothing_of_a_task_that_is_over():
    """With Flower's own handler it does, and its SuperNode takes no other message: this fails when that changes."""

    def run(replace: str) -> subprocess.CompletedProcess[str]:
        code = _TOLD_TO_END.format(root=str(Path(__file__).parents[2]), replace=replace)
        environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert "told the SuperNode" in run("").stdout
    ours = run("_end_at_once_when_told(runtime)")
    assert (ours.stdout, ours.returncode) == ("", 128 + signal.SIGTERM)
