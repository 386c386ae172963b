"""A server of real processes on real sockets: one scenario, and what was seen in it."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from client.node_file import read_node_file
from deployment.serve.processes import marked_processes
from deployment.serve.state import StateFolder
from strategies.secure_aggregation.settings import SMALLEST_COHORT

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "simulations" / "assets"
PATIENCE = 180.0

pytestmark = [pytest.mark.proxy, pytest.mark.slow]


@dataclass
class Seen:
    """What was seen. codes: HTTP status by path. refused: exit code and output of SuperNodes, by name."""

    state: StateFolder
    codes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    during: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    second: str = ""
    exit_code: int | None = None
    left: list[int] = field(default_factory=list)
    lines: str = ""


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("served")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield scenario(folder, processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait(20)


def scenario(folder: Path, processes: list[subprocess.Popen[bytes]]) -> Seen:
    port, superlink_port = free_port(), free_port()
    fleet, state = folder / "fleet", StateFolder(folder / "state")
    seen = Seen(state)
    enroll(fleet, "--server", f"127.0.0.1:{port}", "--node", "kitchen", "--node", "hall")
    enroll(folder / "other", "--server", f"127.0.0.1:{port}", "--node", "stranger")
    options = ["--model", ASSETS / "vit_fashion_mnist", "--state", state.path, "--host", "127.0.0.1", "--no-status"]
    options += ["--superlink-port", superlink_port, "--rounds", 1, "--probes", 1]
    command = [sys.executable, "-m", "fedsieve", "serve", *map(str, [fleet, *options])]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    processes.append(server)
    wait_for(lambda: b"ready" in (folder / "serve.log").read_bytes(), server)
    kitchen = supernode(fleet, "kitchen", folder, port)
    processes.append(kitchen)
    seen.second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stderr
    trust = ssl.create_default_context(cafile=str(fleet / "authority.crt"))
    for path in ("/v1/control/list-runs", "/v1/runtime/pull-messages", "/", "/v1/fleet/pull-messages"):
        kind = {"content-type": "application/protobuf"}
        seen.codes[path] = httpx.post(f"https://127.0.0.1:{port}{path}", verify=trust, headers=kind).status_code
    enroll(fleet, "--revoke", "hall", keep=(fleet / "nodes" / "hall.json", folder / "hall.json"))
    wait_for(lambda: record(state)["nodes"]["revoked"] == 1, server)
    for name, file in (("stranger", folder / "other" / "nodes" / "stranger.json"), ("hall", folder / "hall.json")):
        node = supernode(fleet, name, folder, port, file=file)
        processes.append(node)
        seen.refused[name] = (node.wait(PATIENCE), (folder / name / "log").read_text())
    wait_for(lambda: any(run["ended"] for run in record(state)["runs"]), server)
    seen.during = record(state)
    server.send_signal(signal.SIGTERM)
    seen.exit_code = server.wait(60)
    seen.after, seen.left = record(state), marked_processes(state.marker)
    seen.lines = (folder / "serve.log").read_text()
    for number in (port, superlink_port):
        with socket.create_server(("127.0.0.1", number)):
            pass
    return seen


def supernode(
    fleet: Path, name: str, folder: Path, port: int, *, file: Path | None = None, more: str = ""
) -> subprocess.Popen[bytes]:
    """Start a device as its operator would, with what its node file holds. more: of its node configuration."""
    file, own = file or fleet / "nodes" / f"{name}.json", folder / name
    node = read_node_file(file)
    own.mkdir()
    (own / "key").write_text(node.private_key)
    (own / "key").chmod(0o600)
    (own / "ca.crt").write_bytes((fleet / "authority.crt").read_bytes())
    write_images(own / "data")
    config = f'data-dir="{own}/data" state-dir="{own}/state" node-file="{file}" {more}'
    scripts = sysconfig.get_path("scripts")
    environment = {
        "FLWR_HOME": str(own / "flower"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    command = [f"{scripts}/flower-supernode", "--root-certificates", own / "ca.crt", "--superlink", f"127.0.0.1:{port}"]
    command += ["--auth-supernode-private-key", own / "key", "--host", "127.0.0.1", "--port", free_port()]
    command += ["--isolation", "subprocess", "--node-config", config]
    with (own / "log").open("wb") as log:
        return subprocess.Popen(
            [*map(str, command)], stdout=log, stderr=log, env={**os.environ, **environment}, cwd=own
        )


def write_images(folder: Path, *, each: int = 8) -> None:
    with np.load(ASSETS / "fashion_mnist_subset.npz") as bundled:
        images, labels = bundled["train_images"], bundled["train_labels"]
    folder.mkdir()
    for label in range(3):
        for number, image in enumerate(images[labels == label][:each]):
            Image.fromarray(image).save(folder / f"{label}-{number}.png")


def enroll(fleet: Path, *options: str, keep: tuple[Path, Path] | None = None) -> None:
    if keep is not None:
        keep[1].write_bytes(keep[0].read_bytes())
        keep[1].chmod(0o600)
    command = [sys.executable, "-m", "fedsieve", "enroll", str(fleet), *options]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def record(state: StateFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(state.record.read_bytes())
    return found


def wait_for(condition: Callable[[], object], server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert server.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_from_outside_only_the_fleet_api_answers(seen):
    assert seen.codes.pop("/v1/fleet/pull-messages") == 401  # the SuperLink itself: no signature of a node
    assert set(seen.codes.values()) == {403}


@pytest.mark.parametrize("name", ["stranger", "hall"])
def test_a_key_that_is_not_registered_or_was_revoked_is_refused(seen, name):
    code, output = seen.refused[name]
    assert code != 0
    assert "Exit Code: 305" in output
    assert (
        "[code: 2004] Failed to activate SuperNode" in output
    )  # what the SuperLink answers to a key it does not admit


def test_a_run_is_completed_through_the_proxy(seen):
    run = seen.during["runs"][0]
    assert (run["number"], run["state"], run["reason"]) == (1, "completed", "")
    journal = json.loads((seen.state.run / "journal.json").read_bytes())
    assert [len(journal["rounds"]), journal["final"]["clients_replied"]] == [1, 1]
    assert journal["rounds"][0]["failures"] == journal["final"]["failures"] == {}
    assert journal["series"] > 0


def test_a_fleet_too_small_for_a_sum_learns_nothing_and_says_why(seen):
    record = json.loads((seen.state.run / "journal.json").read_bytes())["rounds"][0]
    assert f"secure aggregation of 1 clients: expected {SMALLEST_COHORT}" in record["not_learned"]
    assert (
        f"warning: 2 devices enrolled, and rounds teach nothing with fewer than {SMALLEST_COHORT} connected"
        in seen.lines
    )
    assert "nothing learned: secure aggregation of 1 clients" in seen.lines


def test_serve_json_says_what_there_is(seen):
    assert seen.during["phase"] in ("running", "idle")
    assert seen.during["nodes"] == {"enrolled": 1, "revoked": 1, "online": 1}
    assert seen.during["processes"] == {name: {"state": "up", "restarts": 0} for name in ("superlink", "proxy")}
    assert seen.during["settings"]["rounds"] == 1
    assert seen.during["next_run"] is None


def test_a_second_server_on_the_same_state_is_refused(seen):
    assert "another fedsieve serve uses this state folder" in seen.second


def test_sigterm_ends_everything(seen):
    assert (seen.exit_code, seen.left) == (0, [])
    assert seen.after["phase"] == "stopping"
    assert {process["state"] for process in seen.after["processes"].values()} == {"down"}
    assert "Traceback" not in seen.lines
