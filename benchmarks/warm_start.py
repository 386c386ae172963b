"""How soon a device's process for one message is at its first probe: `python -m benchmarks.warm_start [--json]`.

A SuperNode starts a new process for every message. Here processes are started in turns: `python -c "import torch"`,
other imports, Flower's own command for the process, and the same program through `client.launcher`. The last two
answer the second message of a run on the state that the first one left, from a stand-in for the SuperNode on loopback,
and are timed from their start to the result of the first masked forward pass, then ended. Bundled ViT, 200 images.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.stand_in import StandIn
from client.launcher import COMMAND, environment_with_launcher
from personalization.model_files.backbone import load_backbone
from personalization.sensing.prior import Prior
from personalization.settings import PersonalizationSettings
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from simulations.bundle import BUNDLE
from simulations.pretrain import MODEL_FOLDER

# A warm process is at its first probe after at most this many times what importing torch takes.
TARGET = 1.5
SAMPLES, CLASSES, PROBES = 200, 3, 6
_ROOT = Path(__file__).parents[1]
_NODE = 7
_PATIENCE = 120.0

IMPORTS = {
    "python alone": "pass",
    "import torch": "import torch",
    "import transformers and its base class": "import torch; from transformers import PreTrainedModel",
    "Flower's command, imports only": "import flwr.supernode.cli",
    "the launcher, imports only": "import gc; gc.set_threshold(100_000); import flwr.supernode.runtime.run_clientapp",
}
_TORCH = "import torch"
FLOWERS, LAUNCHERS = "Flower's command, to the first probe", "the launcher, to the first probe"


def write_images(folder: Path, samples: int = SAMPLES) -> None:
    """Write the images of a device with three classes of the bundled data set into class folders."""
    with np.load(BUNDLE) as bundle:
        images, labels, names = bundle["train_images"], bundle["train_labels"], bundle["class_names"]
    for name in range(CLASSES):
        (folder / str(names[name])).mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(labels == name)[: samples // CLASSES + 1]):
            Image.fromarray(images[index]).save(folder / str(names[name]) / f"{number:03}.png")


def device_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a device whose files are in `folder`, with the stopwatch in each of its processes."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    scripts = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    own = {"FLWR_HOME": str(folder / "flwr"), "STOPWATCH": str(folder / "stopwatch"), "PATH": scripts}
    # Nothing else is to be on the path: a process runs the program that came with its run.
    return {**os.environ, **quiet, **own, "PYTHONPATH": str(Path(__file__).with_name("stopwatch"))}


class Device:
    """A device's folders, and what is sent to it in two rounds."""

    def __init__(self, folder: Path) -> None:
        """Make images and the program that comes with a run in `folder`, and let the device answer a first message."""
        write_images(folder / "data")
        self._folder, self._fab = folder, build_fab_from_disk(_ROOT)
        loaded = load_backbone(str(MODEL_FOLDER))
        assert loaded.preprocessing is not None
        description = {"preprocessing": loaded.preprocessing.to_dict(), "labels": list(loaded.labels)}
        levels = len(PersonalizationSettings().levels)
        self._backbone = GenericBackbone(loaded.model, description, levels)
        self.environment = device_environment(folder)
        self.launcher = environment_with_launcher(folder / "bin", self.environment)
        with self.stand_in(1) as server:
            process = self.start(server, self.launcher)
            assert process.wait(_PATIENCE) == 0, "the first message was not answered"
        error = folder / "state" / "last_error.json"
        assert not error.exists(), error.read_text()

    def stand_in(self, version: int) -> StandIn:
        """Return what hands the message of one plan to whoever asks. version: 1, or 2 for a later round."""
        atoms = self._backbone.layout.atoms
        nothing = np.zeros(self._backbone.layout.groups, dtype=np.bool_)
        prior = Prior(np.ones(atoms), np.ones(atoms))
        plan = Plan(version=version, prior=prior, dropped=nothing, probes=PROBES, budget=0.5)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        content = self._backbone.request(plan, None if version == 1 else nothing)
        node = {"data-dir": str(self._folder / "data"), "state-dir": str(self._folder / "state")}
        with (_ROOT / "pyproject.toml").open("rb") as file:
            run = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
        context = Context(1, _NODE, dict(node), RecordDict(), run)
        return StandIn(Message(content, _NODE, MessageType.TRAIN), context, self._fab)

    def start(self, server: StandIn, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the process as a SuperNode does, by the name of its command."""
        command = [COMMAND, "--runtime-api-address", server.address, "--token", "0" * 32, "--insecure"]
        # Popen looks for the command on the PATH of the environment that it is given.
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def first_probe(self, server: StandIn, environment: Mapping[str, str]) -> float:
        """Return the seconds from the start of a process to its first probe. Raises RuntimeError if there is none."""
        watch = Path(environment["STOPWATCH"])
        watch.unlink(missing_ok=True)
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        process = self.start(server, environment)
        try:
            while not (watch.exists() and watch.read_text().endswith("\n")):
                if process.poll() is not None or time.clock_gettime(time.CLOCK_MONOTONIC) > started + _PATIENCE:
                    raise RuntimeError(f"{COMMAND} ended without a probe; see {self._folder / 'state/last_error.json'}")
                time.sleep(0.005)
            return float(json.loads(watch.read_text())["probe"]) - started
        finally:
            process.kill()
            process.wait()


def seconds_of(code: str, environment: Mapping[str, str]) -> float:
    """Return the seconds that a process takes that runs `code`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=tempfile.gettempdir())
    return time.perf_counter() - started


def measure(turns: int) -> list[dict[str, Any]]:
    """Return for everything that is started: median seconds and the median of its ratio to importing torch."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="fedsieve-") as folder:
        device = Device(Path(folder))
        plain = {name: value for name, value in device.environment.items() if name not in ("STOPWATCH", "PYTHONPATH")}
        with device.stand_in(2) as server:
            for turn in range(turns + 1):
                done = {name: seconds_of(code, plain) for name, code in IMPORTS.items()}
                done[FLOWERS] = device.first_probe(server, device.environment)
                done[LAUNCHERS] = device.first_probe(server, device.launcher)
                for name, seconds in done.items() if turn else ():  # the first turn warms the page cache
                    times.setdefault(name, []).append(seconds)
    return [
        {
            "what": name,
            "seconds": median(seconds),
            "ratio": median(own / torch for own, torch in zip(seconds, times[_TORCH], strict=True)),
            "target": TARGET if name == LAUNCHERS else None,
        }
        for name, seconds in times.items()
    ]


def main() -> None:
    """Measure and print; exit with 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="times that each is started in turns (default: 7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rows = measure(arguments.turns)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        table = Table("from the start of the process", "seconds", "times import torch", "at most")
        for row in rows:
            target = "" if row["target"] is None else str(row["target"])
            table.add_row(row["what"], f"{row['seconds']:.2f}", f"{row['ratio']:.2f}", target)
        Console().print(table)
    raise SystemExit(any(row["target"] is not None and row["ratio"] > row["target"] for row in rows))


if __name__ == "__main__":
    main()
