"""Secure sums over real sockets: a server and three SuperNodes that give their vectors to sums alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_serve_real import ASSETS, PATIENCE, ROOT, enroll, free_port, supernode, wait_for

NAMES = ("kitchen", "hall", "attic")


@pytest.mark.proxy
@pytest.mark.slow
def test_three_devices_are_summed_and_none_is_seen(tmp_path: Path) -> None:
    port, fleet, run = free_port(), tmp_path / "fleet", tmp_path / "state" / "run"
    enroll(fleet, "--server", f"127.0.0.1:{port}", *(word for name in NAMES for word in ("--node", name)))
    (fleet / "enrolment-key.json").rename(tmp_path / "kept-elsewhere.json")
    options = ["--model", ASSETS / "vit_fashion_mnist", "--state", run.parent, "--host", "127.0.0.1", "--no-status"]
    options += [
        "--superlink-port",
        free_port(),
        "--rounds",
        1,
        "--probes",
        1,
        "--min-nodes",
        3,
        "--once",
        "--smallest-cohort",
        3,
    ]
    command = [sys.executable, "-m", "fedsieve", "serve", *map(str, [fleet, *options])]
    processes = []
    try:
        with (tmp_path / "serve.log").open("wb") as log:
            server = subprocess.Popen(command, stderr=log, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        processes.append(server)
        wait_for(lambda: b"ready" in (tmp_path / "serve.log").read_bytes(), server)
        processes += [supernode(fleet, name, tmp_path, port, more='secure-sums-only="true"') for name in NAMES]
        assert server.wait(3 * PATIENCE) == 0, (tmp_path / "serve.log").read_text()
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait(30)
    text = (run / "journal.json").read_text()
    journal = json.loads(text)
    for record in journal["rounds"]:
        assert record["secure"] == {"clients": 3, "cohorts": 1, "vanished": 0, "rejected": {}}
        assert (record["clients_replied"], record["failures"]) == (3, {})
        assert 0.0 < record["fleet"]["size_ratio"] <= 1.0
    assert (journal["sums"], journal["final"]["clients_replied"]) == (1, 3)
    for name in NAMES:
        assert (tmp_path / name / "state" / "keyring").stat().st_mode & 0o777 == 0o600
        assert name not in text
