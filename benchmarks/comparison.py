"""What `fedsieve compare` costs beside its cells: `python -m benchmarks.comparison [--json]`.

A small comparison on the bundled data is run as a user would run it. CPU time is that of the whole process tree, with
loading of libraries, intervals and page, against what the cells spent themselves; work that cells share and that is
done once is not counted twice.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.process_tree import watch

LARGEST_RATIO = 1.05


def main() -> None:
    """Print the figures; end with 1 if the limit is not met."""
    parser = argparse.ArgumentParser(description="Cost of a comparison beside its cells.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--strategies", default="precision-weighted-mean,median,krum", help="as of fedsieve compare")
    parser.add_argument("--seeds", type=int, default=3, help="as of fedsieve compare")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="as of fedsieve compare")
    arguments = parser.parse_args()
    result = measure(arguments.strategies, seeds=arguments.seeds, jobs=arguments.jobs)
    print(json.dumps(result, indent=1)) if arguments.json else _print(result)
    raise SystemExit(result["ratio"] > LARGEST_RATIO)


def measure(strategies: str, *, seeds: int, jobs: int) -> dict[str, Any]:
    """Return the number of cells, CPU seconds in them and of everything, and their ratios.

    cpu_seconds_all_cached: of everything once more, when no cell is left to run. ratio: all processes' CPU time
    against the cells'. ratio_alone: against what the cells would have spent each by itself, where nothing is shared.
    """
    with tempfile.TemporaryDirectory() as out:
        whole = _compare(strategies, seeds, jobs, out)
        timings = [json.loads(path.read_text())["result"]["timing"] for path in (Path(out) / "cells").iterdir()]
        again = _compare(strategies, seeds, jobs, out)
    alone = sum(timing["cpu_seconds"] for timing in timings)
    spent = alone - sum(timing["reused_seconds"] for timing in timings)
    return {
        "cells": len(timings),
        "cpu_seconds_cells": spent,
        "cpu_seconds_cells_alone": alone,
        "cpu_seconds_all": whole,
        "cpu_seconds_all_cached": again,
        "ratio": whole / spent,
        "ratio_alone": whole / alone,
    }


def _compare(strategies: str, seeds: int, jobs: int, out: str) -> float:
    """Run the command and return the CPU seconds of its process tree."""
    command = [sys.executable, "-m", "fedsieve", "compare", "--strategies", strategies, "--out", out]
    command += ["--seeds", str(seeds), "--jobs", str(jobs), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        _, usage = watch(process)
    if process.returncode:
        raise SystemExit(f"fedsieve compare failed with {process.returncode}")
    return usage.cpu_seconds


def _print(result: dict[str, Any]) -> None:
    print(f"{result['cells']} cells: {result['cpu_seconds_cells']:.1f} s of processor time in them")
    print(f"everything: {result['cpu_seconds_all']:.1f} s, ratio {result['ratio']:.3f} (at most {LARGEST_RATIO})")
    print(f"each cell by itself: {result['cpu_seconds_cells_alone']:.1f} s, ratio {result['ratio_alone']:.3f}")
    print(f"again, nothing left to run: {result['cpu_seconds_all_cached']:.1f} s")


if __name__ == "__main__":
    main()
