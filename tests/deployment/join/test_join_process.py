"""`fedsieve join` as a process, against a SuperLink with TLS and node keys."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joining import write_images

from deployment.command import Enrolment, enroll

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
DEADLINE = 120.0


def wait_for(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


class Fleet:
    """A SuperLink that can be restarted, or none, and joins."""

    def __init__(self, folder: Path, *, superlink: bool = True) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.folder, self.keys = folder, folder / "fleet"
        enroll(self.keys, Enrolment(server=f"localhost:{self.port}", nodes=["hall", "attic"]))
        (folder / "flwr").mkdir()
        (folder / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "edge"\n[superlink.edge]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{self.keys / "authority.crt"}"\n'
        )
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        self.started: list[subprocess.Popen[bytes]] = []
        self.images = write_images(folder / "images")
        if superlink:
            self.superlink = self.start_superlink()

    def start(self, log: str, *command: object) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as out:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=ROOT,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def start_superlink(self) -> subprocess.Popen[bytes]:
        keys = self.keys
        return self.start(
            "superlink.log",
            *(BIN / "flower-superlink", "--ssl-ca-certfile", keys / "authority.crt"),
            *("--ssl-certfile", keys / "server.crt", "--ssl-keyfile", keys / "server.key", "--enable-supernode-auth"),
            *("--host", "127.0.0.1", "--port", self.port, "--database", self.folder / "state.db"),
            *("--isolation", "subprocess", "--disable-runtime-dependency-installation"),
        )

    def listens(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def register(self, name: str) -> None:
        subprocess.run(
            [BIN / "flwr", "supernode", "register", self.keys / "nodes" / f"{name}.pub", "edge", "--name", name],
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def join(self, name: str) -> subprocess.Popen[bytes]:
        file = self.keys / "nodes" / f"{name}.json"
        return self.start(
            f"{name}.log", sys.executable, "-m", "fedsieve", "join", file, "--data", self.images, "--json"
        )

    def told(self, name: str, event: str) -> bool:
        return f'"event": "{event}"' in (self.folder / f"{name}.log").read_text()

    def processes(self) -> list[str]:
        """Command lines of all that runs for the states of this test."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"FLWR_HOME={self.folder / '.cache'}".encode() in path.read_bytes():
                    found.append((path.parent / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.mark.slow
def test_a_join_that_is_killed_leaves_nothing_running(tmp_path):
    fleet = Fleet(tmp_path, superlink=False)
    join = fleet.join("hall")
    try:
        assert wait_for(lambda: any("flower-superexec" in line for line in fleet.processes()))
        assert fleet.told("hall", "unreachable")
        join.kill()
        join.wait()
        assert wait_for(lambda: not fleet.processes()), fleet.processes()
    finally:
        fleet.stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    one = Fleet(tmp_path)
    try:
        assert wait_for(one.listens)
        yield one
    finally:
        one.stop()


@pytest.mark.slow
def test_a_device_joins_stays_and_leaves_nothing_behind(fleet):
    fleet.register("hall")
    hall, attic = fleet.join("hall"), fleet.join("attic")
    assert wait_for(lambda: fleet.told("hall", "connected")), (fleet.folder / "hall.log").read_text()
    (home,) = (fleet.folder / ".local" / "share" / "fedsieve").glob("*/hall")
    for name in ("node.key", "authority.crt", "node-config.toml", "supernode.log", "join.json"):
        assert (home / name).stat().st_mode & 0o777 == 0o600, name
    secret = json.loads((fleet.keys / "nodes" / "hall.json").read_text())["private_key"].splitlines()[1]
    assert fleet.processes()
    assert not any(secret in line or ".key " not in line + " " for line in fleet.processes() if "--superlink" in line)

    assert attic.wait(DEADLINE) == 2  # never registered
    assert "error: " in (fleet.folder / "attic.log").read_text()
    assert "does not admit attic" in (fleet.folder / "attic.log").read_text().replace("\n", " ")

    os.killpg(fleet.superlink.pid, signal.SIGKILL)
    fleet.superlink.wait()
    assert wait_for(lambda: fleet.told("hall", "disconnected"))
    fleet.superlink = fleet.start_superlink()
    assert wait_for(lambda: fleet.told("hall", "reconnected")), (fleet.folder / "hall.log").read_text()

    hall.send_signal(signal.SIGTERM)
    assert hall.wait(DEADLINE) == 0
    assert fleet.told("hall", "ended")
    assert wait_for(lambda: not fleet.processes()), fleet.processes()
    assert not (home / "node.key").exists()
    assert json.loads((home / "join.json").read_text())["online"] is False
