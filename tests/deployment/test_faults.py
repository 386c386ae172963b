"""A fleet of real processes that is hit: the faults of `benchmarks.faults` that tell most, on one fleet."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.fleet import DEVICES, SUPERLINK, FaultFleet, FleetOptions
from benchmarks.faults.rows import HIT, crash, lost_cache
from benchmarks.faults.watch import Watch, complete
from client.model import load_model
from deployment.join.vault_choice import VaultChoice, make_missing_key, open_state
from personalization.data.image_data import image_files
from personalization.model_files.source_model import SourceModel
from personalization.prediction.image_prediction import predict_images

pytestmark = pytest.mark.slow
DEADLINE = 30.0
ROOT = Path(__file__).parents[2]
# Writes a model of many bytes where the kernel lets no file grow over some, as on a disk that is nearly full.
FULL = """
import resource, signal, sys
from pathlib import Path
from deployment.join.vault_choice import VaultChoice, open_state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
state = open_state(Path(sys.argv[1]), VaultChoice(source="file", name=sys.argv[2]), {})
try:
    state.change({"model/2/small": b"new", "model/2/large": bytes(200_000), "model/1/small": None})
except OSError:
    sys.exit(3)
"""


@dataclass
class Seen:
    """What was seen. rounds, said: of each fault, the journal's rounds and the server's lines since it."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    superlinks: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    reads: int = 0
    classes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    journal: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Seen:
    fleet = FaultFleet(tmp_path_factory.mktemp("faults"), FleetOptions(deadline=DEADLINE, probes=2))
    seen = Seen()
    try:
        fleet.start()
        scenario(fleet, seen)
    finally:
        seen.left = fleet.stop()
    return seen


def scenario(fleet: FaultFleet, seen: Seen) -> None:
    fleet.wait(lambda: any(map(complete, fleet.rounds())), "the first round", patience=600)
    watch = Watch(fleet)
    watch.begin()
    try:
        for name in ("cache", "superlink", "client"):
            before, said = len(fleet.rounds()), len(watch.said("server"))
            if name == "cache":
                lost_cache(fleet, watch)
            elif name == "superlink":
                seen.superlinks.append(fleet.running(SUPERLINK, "server")[0][0])
                crash(fleet, watch, process="SuperLink", number=signal.SIGKILL, phase="probing")
                seen.superlinks.append(fleet.running(SUPERLINK, "server")[0][0])
            else:
                fleet.arm(HIT, "probing")
                os.kill(fleet.caught(HIT, "probing"), signal.SIGKILL)
                fleet.wait(lambda before=before: len(fleet.rounds()) > before + 1, "rounds without the device")
            seen.rounds[name] = fleet.rounds()[before:]
            seen.said[name] = "\n".join(watch.said("server")[said:])
        files = image_files(fleet.data(HIT))[:4]
        source = SourceModel.personal(load_model(fleet.opened(HIT)), HIT)
        seen.classes = [one["class"] for one in predict_images(source, files)]
        seen.runs = fleet.runs()
    finally:
        watch.close()
        seen.broken, seen.reads = watch.broken, watch.reads
    seen.journal = json.loads(Path(fleet.server_state / "run" / "journal.json").read_bytes())


@pytest.mark.parametrize("room", [100, 3_000, 199_000])
def test_a_disk_that_takes_no_more_leaves_what_stood_there(tmp_path, room):
    choice = VaultChoice(source="file", name=str(tmp_path / "key"))
    make_missing_key(tmp_path / "state", choice)
    before = open_state(tmp_path / "state", choice, {})
    before.change({"model/1/small": b"old", "model/1/large": bytes(1_000)})
    files = sorted(path.name for path in (tmp_path / "state" / "vault").iterdir())
    command = [sys.executable, "-c", FULL, tmp_path / "state", choice.name, room]
    assert subprocess.run(list(map(str, command)), cwd=ROOT).returncode == 3
    after = open_state(tmp_path / "state", choice, {})
    assert (after.versions("model"), after.read("model/1/small")) == ([1], b"old")
    assert sorted(path.name for path in (tmp_path / "state" / "vault").iterdir()) == files
    after.change({"model/2/small": b"new"})
    assert after.read("model/2/small") == b"new"


@pytest.mark.proxy
def test_personal_models_and_journal_were_readable_all_the_time(seen):
    assert seen.broken == []
    assert seen.reads > 20
    assert len(seen.classes) == 4


@pytest.mark.proxy
def test_a_client_without_the_cache_that_the_server_believes_in_is_sent_it_again(seen):
    assert sum(record["first_contacts"] for record in seen.rounds["cache"]) == 1
    assert complete(seen.rounds["cache"][-1])


@pytest.mark.proxy
def test_a_superlink_that_is_killed_comes_back_and_the_rounds_go_on(seen):
    before, after = seen.superlinks
    assert before != after
    assert "superlink: started again" in seen.said["superlink"]
    assert complete(seen.rounds["superlink"][-1])
    assert (seen.runs[0]["state"], seen.runs[-1]["state"]) == ("failed", "running")


@pytest.mark.proxy
def test_a_client_that_is_killed_costs_its_reply_and_no_round(seen):
    first = next(record for record in seen.rounds["client"] if not complete(record))
    assert first["clients_replied"] == len(DEVICES) - 1
    assert sum(first["failures"].values()) == 1
    assert len(seen.rounds["client"]) > 1


@pytest.mark.proxy
def test_no_round_is_lost_or_done_twice(seen):
    numbers = [record["round"] for record in seen.journal["rounds"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(map(len, (seen.journal["finals"], seen.left))) == {0}
