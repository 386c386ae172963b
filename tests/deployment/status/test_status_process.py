import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from status_state import make_state

ROOT = Path(__file__).parents[3]


def command(state: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deployment.status", str(state), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@contextmanager
def started(state: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with command(state, "--port", "0", *arguments) as process:
        try:
            line = process.stdout.readline()
            yield process, re.search(r"http://\S+/$", line.strip())[0]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(tmp_path, signal_number):
    with started(make_state(tmp_path)) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        answer = httpx2.get(address)
        assert (answer.status_code, "Fleet 7eee75e1" in answer.text) == (200, True)
        assert httpx2.get(address, headers={"Host": "evil.example"}).status_code == 421
        assert "server" not in answer.headers
        process.send_signal(signal_number)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in out + err
        if signal_number == signal.SIGTERM:
            assert process.returncode == 0


def test_it_says_so_when_others_can_read_it(tmp_path):
    with started(tmp_path, "--host", "0.0.0.0") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert "no password" in process.communicate(timeout=60)[1]


def test_mistakes_are_one_line_and_exit_code_2(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        wrong = ((tmp_path, "--port", port), (tmp_path, "--host", "192.0.2.1"), (file,))
        processes = [command(*arguments) for arguments in wrong]
        for process, told in zip(processes, (port, "192.0.2.1", "state folder"), strict=True):
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (2, "")
            assert err.startswith("error: ")
            assert told in err
            assert err.count("\n") == 1
