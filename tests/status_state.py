"""State folders as a serve keeps them, with the journal of a real run of a small simulated fleet."""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fake_personalize, make_tiny_vit

from simulations.fleet import run_fleet
from simulations.fleet_settings import FleetSettings

CLIENTS, ROUNDS = 9, 3


@cache
def _journal_text() -> str:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        folder = Path(name)
        make_tiny_vit().save_pretrained(folder / "model")
        labels = np.arange(120) % 3
        images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
        np.savez(
            folder / "data.npz",
            train_images=images,
            train_labels=labels,
            test_images=images[:60],
            test_labels=labels[:60],
            class_names=np.array(["a", "b", "c"]),
        )
        patched.setattr("client.work.own_personalize", fake_personalize)
        settings = FleetSettings(
            clients=CLIENTS,
            rounds=ROUNDS,
            fraction=1.0,
            classes_per_client=2,
            samples=12,
            probes=6,
            model=str(folder / "model"),
            data=folder / "data.npz",
            out=folder / "out",
        )
        run_fleet(settings)
        return (folder / "out" / "server" / "journal.json").read_text()


def run_journal() -> dict[str, Any]:
    """The journal of rounds and a final pass of a small simulated fleet, whose clients make up what they measure."""
    return dict(json.loads(_journal_text()))


def make_state(tmp_path: Path) -> Path:
    """A state folder in the midst of a run."""
    folder = tmp_path / "state"
    folder.mkdir()
    write_journal(folder, run_journal())
    write_serve(folder, serve_record())
    return folder


def serve_record(**changes: Any) -> dict[str, Any]:
    """What serve writes about itself, just now."""
    now = datetime.now(UTC)
    runs = [
        {"number": 1, "run_id": "77", "started": _iso(now, -7200), "ended": _iso(now, -7100), "state": "failed",
         "reason": "round 2: no client of 4 replied (4 no_reply)"},
        {"number": 2, "run_id": "78", "started": _iso(now, -3600), "ended": _iso(now, -3540), "state": "completed",
         "reason": ""},
        {"number": 3, "run_id": "79", "started": _iso(now, -60), "ended": None, "state": "running", "reason": ""},
    ]  # fmt: skip
    return {
        "fleet": "7eee75e1691ce028",
        "server": "edge.example.org:8443",
        "started": _iso(now, -86400),
        "written": _iso(now, 0),
        "phase": "running",
        "processes": {
            "superlink": {"state": "up", "restarts": 1},
            "proxy": {"state": "restarting", "restarts": 3},
            "status": {"state": "up", "restarts": 0},
        },
        "nodes": {"enrolled": 9, "revoked": 1, "online": 8},
        "runs": runs,
        "next_run": _iso(now, 1800),
        "settings": {"every": 3600},
        **changes,
    }


def write_serve(state: Path, record: dict[str, Any]) -> None:
    """Put `record` in the place of serve.json."""
    (state / "serve.json").write_text(json.dumps(record))


def write_journal(state: Path, record: dict[str, Any]) -> None:
    """Put `record` in the place of the run's journal, whole at once, as a server does."""
    path = state / "run" / "journal.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(record))
    fresh.replace(path)


def _iso(now: datetime, seconds: float) -> str:
    return (now + timedelta(seconds=seconds)).isoformat()
