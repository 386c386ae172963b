"""What an uplink gives away: `python -m benchmarks.inference [--json FILE] [--quick]`.

Records a fleet's vectors (about 1 second of CPU time each, kept in runs/inference, so that a run that is cut off goes
on where it was) and FedAvg's updates of the same clients, attacks both, and prints what comes of it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from simulations.inference.run import InferenceSettings, run_inference
from simulations.inference.table import markdown

QUICK: dict[str, Any] = {
    "targets": 20,
    "shadow": 40,
    "fedavg_targets": 10,
    "fedavg_shadow": 20,
    "cohorts": (1, 10, 100),
    "trials": 3,
    "candidates": 10,
    "epochs": 5,
}
# Clients of so few images that single ones begin to show.
FEW: dict[str, Any] = {
    "samples": 9,
    "classes_per_client": 1,
    "pool": 30,
    "targets": 20,
    "shadow": 60,
    "fedavg_targets": 0,
    "fedavg_shadow": 0,
    "cohorts": (1,),
    "candidates": 9,
}


def main() -> None:
    """Run, print the tables, and write everything to a file if one is named."""
    parser = argparse.ArgumentParser(description="Attack what clients send, and print what it gives away.")
    parser.add_argument("--json", type=Path, help="file for all results, of all attackers")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="few clients: shows that it works, not what leaks")
    sizes.add_argument("--few", action="store_true", help="clients that hold nine images of one class, vectors alone")
    parser.add_argument("--cache", type=Path, default=InferenceSettings.cache, help="folder of recordings")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sized = QUICK if arguments.quick else FEW if arguments.few else {}
    settings = InferenceSettings(**sized, cache=arguments.cache, seed=arguments.seed)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, of: int) -> None:
            if not console.is_terminal:
                console.print(f"{stage}: {done} of {of}")
                return
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=of)
            progress.update(tasks[stage], completed=done, total=of)

        found = run_inference(settings, on_progress=show)
    print(markdown(found["results"]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
