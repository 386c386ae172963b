"""The demonstration from an empty folder to a report."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.edge.commands import Commands, EdgeError, check_machine
from benchmarks.edge.device import Device
from benchmarks.edge.devices import make_devices
from benchmarks.edge.figures import Row, dense_bytes, totals
from benchmarks.edge.image_rows import image_rows
from benchmarks.edge.replay import Replay, differences, replay
from benchmarks.edge.settings import EdgeSettings
from benchmarks.edge.speakers import make_speakers
from benchmarks.edge.story import CUT_OFF, SERVER, Say, Story
from benchmarks.edge.text_rows import text_rows
from deployment.serve.nginx import find_nginx
from personalization.data.texts import TextPreprocessing
from personalization.model_files.backbone import Backbone, load_backbone
from server.journal import Journal
from simulations.pretrain import MODEL_FOLDER


def run_edge(settings: EdgeSettings, *, model: Path = MODEL_FOLDER, say: Say = lambda line: None) -> dict[str, Any]:
    """Run the demonstration and return its report.

    say: takes a line for everything that happens. Raises UserError if it cannot begin, EdgeError for what did not come
    out. None of its processes outlives the call.
    """
    started = time.monotonic()
    check_machine()
    find_nginx()
    backbone = load_backbone(str(model))
    devices, rows_of = _kind(settings, backbone)
    with Commands(settings.out / "log") as commands:
        story = Story(settings, model, devices, commands, say)
        story.begin()
        story.rounds()
        story.look()
        say("fedsieve predict, and what else there is, on every device")
        rows = rows_of(commands)
        story.end()
    say("the same in the simulator")
    journal = story.journal
    simulated = replay(story.serve, devices, settings.out / "simulated", missed=missed_plans(rows, settings.rounds))
    check(journal, simulated, rows)
    back, memory = story.seen.back, story.seen.memory
    return {
        "devices": [
            {
                **row,
                "rounds": sum(version <= settings.rounds for version in row["plans"]),
                "back_seconds": back.get(row["device"]),
                "peak_memory_bytes": memory[row["device"]].peak_memory_bytes,
            }
            for row in rows
        ],
        "server": {"ready_seconds": back.get(SERVER), "round_seconds": back.get(CUT_OFF)},
        "totals": {**totals(journal), "wall_seconds": time.monotonic() - started},
        "dense_bytes": dense_bytes(backbone),
        "same_as_simulated": True,
        "nodes_online": story.seen.status["nodes"]["online"],
    }


def _kind(settings: EdgeSettings, backbone: Backbone) -> tuple[Sequence[Device], Callable[[Commands], list[Row]]]:
    """Return the devices that a model is for, and what tells what came out of them."""
    if isinstance(backbone.preprocessing, TextPreprocessing):
        speakers = make_speakers(settings)
        return speakers, lambda commands: text_rows(speakers, settings, backbone, commands)
    devices = make_devices(settings, backbone)
    return devices, lambda commands: image_rows(devices, backbone, commands)


def missed_plans(rows: list[Row], rounds: int) -> dict[str, frozenset[int]]:
    """Return the versions of the plan that each device, by name, has not worked on; the final pass is one of them."""
    return {row["device"]: frozenset(range(1, rounds + 2)) - frozenset(row["plans"]) for row in rows}


def check(journal: Journal, simulated: Replay, rows: list[Row]) -> None:
    """Raise EdgeError unless the deployed fleet ended with what the simulated one did."""
    for record in journal.rounds:
        late = sum(record["round"] in row["plans"] for row in rows) - record["clients_replied"]
        if late:
            raise EdgeError(f"round {record['round']}: {late} answers came too late; this machine is too busy for that")
    found = differences(journal, simulated.journal)
    found += [
        f"personal model of {row['device']}"
        for row in rows
        if row["weights_sha256"] != simulated.models[row["device"]].weights_sha256
    ]
    if found:
        raise EdgeError(f"the simulator, with the same seeds, differs in: {', '.join(found)}")
