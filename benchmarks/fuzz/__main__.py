"""Fuzz every decoder of the wire with atheris (libFuzzer), guided by coverage, from a corpus of valid messages.

Needs the extra `fuzz`: pip install -e '.[fuzz]'. What a decoder raises beyond what it documents, an input that takes
longer than 10 seconds or more than 2 GB stops that decoder, and the input is kept in the folder.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# Percent of the inputs. What is inside the messages takes many times as many in a second as Flower's messages do.
_WEIGHTS = {"request": 20, "reply": 20, "statistics vector": 10, "secure messages": 50}
_DONE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)(?: corp: (\d+))?")


def main() -> int:
    """Run the command line; return the exit code: 1 if something was found, 2 if atheris is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000_000, help="inputs in all, over the decoders (10000000)")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer (1)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/fuzz"), help="corpora, logs, findings, result (runs/fuzz)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("error: atheris is not installed; pip install -e '.[fuzz]'", file=sys.stderr)
        return 2

    from benchmarks.fuzz.wire import grouped_decoders

    rows = []
    for name in grouped_decoders():
        runs = -(-arguments.runs * _WEIGHTS[name] // sum(_WEIGHTS.values()))
        rows.append(fuzz(name, runs=runs, seed=arguments.seed, out=arguments.out.absolute()))
        print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    (arguments.out / "fuzz.json").write_text(json.dumps({"seed": arguments.seed, "decoders": rows}, indent=1))
    print(json.dumps(rows, indent=1)) if arguments.json else Console().print(_table(rows))
    return int(any(row["findings"] for row in rows))


def fuzz(name: str, *, runs: int, seed: int, out: Path) -> dict[str, Any]:
    """Fuzz one decoder and return inputs, coverage (edges, features), size of the corpus, findings and seconds."""
    folder = out / name.replace(" ", "-")
    found = folder / "findings"
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    started, log = time.monotonic(), folder / "log.txt"
    command = [sys.executable, "-m", "benchmarks.fuzz.child", name, str(folder / "corpus"), *options]
    with log.open("w") as file:
        done = subprocess.run([*command, f"-artifact_prefix={found}/"], stdout=file, stderr=file, check=False)
    last = _DONE.findall(log.read_text(errors="replace"))
    inputs, edges, features, corpus = (int(number or 0) for number in last[-1]) if last else (0, 0, 0, 0)
    return {
        "decoder": name,
        "inputs": inputs,
        "edges": edges,
        "features": features,
        "corpus": corpus,
        "findings": max(len(list(found.iterdir())), int(done.returncode != 0)),
        "seconds": round(time.monotonic() - started, 1),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*rows[0])
    for row in [*rows, _sums(rows)]:
        table.add_row(*(f"{value:,}" if not isinstance(value, str) else value for value in row.values()))
    return table


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: "all" if key == "decoder" else sum(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    sys.exit(main())
