"""What faults do to a fleet of real processes: `python -m benchmarks.faults [--only NAME,...] [--json FILE]`.

Prints the table of docs/faults.md. Results are kept in FILE as they come, so that a table that was interrupted goes on.
"""

import argparse
import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.faults.fleet import FaultError, FaultFleet, FleetOptions
from benchmarks.faults.rows import ABSENT, FAULTS, HIT, Fault
from benchmarks.faults.watch import Watch, complete
from client.model import load_model
from personalization.data.image_data import image_files
from personalization.errors import UserError
from personalization.model_files.source_model import SourceModel
from personalization.prediction.image_prediction import predict_images
from personalization.system.files import write_atomically

# Bytes of the small disks: a device's state takes 2 MB of it, the server's 8 MB and some for every run.
SMALL_DISKS = (8 << 20, 96 << 20)
_START_SECONDS = 600.0
_OUT = Path("runs/faults.json")
_COLUMNS = ("fault", "phase", "seen", "next round, s", "every device, s", "lost")
Record = dict[str, Any]


class Lane:
    """Works on faults one after the other, on one fleet as long as it recovers."""

    def __init__(self, console: Console, *, deadline: float) -> None:
        """console: for the progress. deadline: seconds of a round."""
        self._console, self._deadline, self._folder = console, deadline, Path()
        self._fleet: FaultFleet | None = None

    def run(self, fault: Fault) -> Record | None:
        """Return what came of a fault, None if it can't be tried here."""
        if fault.needs_small_disks and os.geteuid() != 0:
            self._console.print(f"{fault.name}: left out, only root can mount a small disk")
            return None
        try:
            fleet = self._ready()
        except (FaultError, UserError, OSError) as error:
            self.close()
            return {"name": fault.name, "broken": [f"the fleet did not start: {error}"]}
        watch = Watch(fleet)
        watch.begin()
        seconds: tuple[float, float] | None = None
        try:
            seconds = fault.run(fleet, watch)
            _predict(fleet, watch)
        except (FaultError, UserError, OSError) as error:
            watch.broken.append(str(error))
        watch.close()
        record = {
            "name": fault.name,
            "seen": watch.seen(),
            "seconds": seconds,
            "lost": watch.lost(),
            "reads": watch.reads,
            "broken": watch.broken,
        }
        if watch.broken:
            self._put_aside(fault.name)
        return record

    def close(self) -> None:
        """End the fleet."""
        if self._fleet is not None:
            left = self._fleet.stop()
            if left:
                self._console.print(f"left after the end: {left}")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._fleet = None

    def _put_aside(self, name: str) -> None:
        """End a fleet that did not recover and keep its logs."""
        kept = Path(tempfile.mkdtemp(prefix=f"fault-{name}-"))
        shutil.copytree(self._folder, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("fleet", "*.key"))
        self._console.print(f"{name}: logs kept in {kept}")
        self.close()

    def _ready(self) -> FaultFleet:
        if self._fleet is None:
            self._folder = Path(tempfile.mkdtemp(prefix="faults-"))
            disks = SMALL_DISKS if os.geteuid() == 0 else None
            options = FleetOptions(deadline=self._deadline, small_disks=disks)
            self._fleet = FaultFleet(self._folder, options)
            self._fleet.start()
            self._fleet.wait(
                lambda: any(map(complete, self._rounds())), "a round with every device", patience=_START_SECONDS
            )
        return self._fleet

    def _rounds(self) -> list[Record]:
        return [] if self._fleet is None else self._fleet.rounds()


def _predict(fleet: FaultFleet, watch: Watch) -> None:
    """Run the personal model of the device that was hit on its own images."""
    files = image_files(fleet.data(HIT))[:8]
    source = SourceModel.personal(load_model(fleet.opened(HIT)), HIT)
    if len(predict_images(source, files)) != len(files):
        watch.broken.append("predictions are missing")


def run_all(faults: Sequence[Fault], out: Path, *, fleets: int, deadline: float, console: Console) -> dict[str, Record]:
    """Return what came of each fault, by name; those that `out` holds already are not tried again."""
    done: dict[str, Record] = json.loads(out.read_bytes()) if out.exists() else {}
    left: queue.SimpleQueue[Fault] = queue.SimpleQueue()
    for fault in faults:
        if fault.name not in done:
            left.put(fault)
    lock, lanes = threading.Lock(), [Lane(console, deadline=deadline) for _ in range(fleets)]

    def work(lane: Lane) -> None:
        try:
            while True:
                record = lane.run(fault := left.get_nowait())
                if record is None:
                    continue
                with lock:
                    done[fault.name] = record
                    out.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(out, json.dumps(done, indent=1).encode())
                console.print(f"{fault.name}: {record}", markup=False, soft_wrap=True)
        except queue.Empty:
            return
        finally:
            lane.close()

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        for lane in lanes:
            lane.close()
        raise SystemExit(130) from None
    return done


def table(done: dict[str, Record]) -> str:
    """Return the table in Markdown, in the order of `FAULTS`."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    for fault in FAULTS:
        record = done.get(fault.name)
        if record is None:
            continue
        seconds = record.get("seconds")
        both = [f"{second:.0f}" for second in seconds] if seconds else ["-", "-"]
        lost = record.get("lost", "")
        if record["broken"]:
            lost = "; ".join(filter(None, [lost, f"**failed: {'; '.join(record['broken'])}**"]))
        lines.append(f"| {fault.title} | {record.get('seen', '')} | {' | '.join(both)} | {lost} |")
    missing = [fault.name for fault in FAULTS if fault.name not in done]
    failed = [name for name, record in done.items() if record["broken"]]
    lines.append("")
    lines.append(f"- {len(FAULTS) - len(missing)} of {len(FAULTS)} faults tried, {len(failed)} failed.")
    lines.append(f"- Personal models were read {sum(r.get('reads', 0) for r in done.values()):,} times meanwhile.")
    lines += [f"- Does not run then: {process} in {phase}." for process, phase in sorted(ABSENT)]
    lines += [f"- Not tried: {line}." for line in _grouped(missing)]
    return "\n".join(lines)


def _grouped(names: Sequence[str]) -> list[str]:
    """Return names such as kill-proxy-upload as lines, one for all phases in which a process is hit in the same way."""
    groups: dict[str, list[str]] = {}
    for name in names:
        way, _, phase = name.rpartition("-") if name.startswith(("kill-", "term-")) else (name, "", "")
        groups.setdefault(way, []).append(phase)
    return [f"{way} in {', '.join(phases)}" if all(phases) else way for way, phases in groups.items()]


def main() -> None:
    """Try the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="Names of faults, with commas between them; see --list.")
    parser.add_argument("--list", action="store_true", help="Print the names of all faults and end.")
    parser.add_argument("--json", type=Path, default=_OUT, help=f"File that keeps the results ({_OUT}).")
    parser.add_argument("--fleets", type=int, default=1, help="Fleets at once, each of some 10 processes (1).")
    parser.add_argument("--deadline", type=float, default=40.0, help="Seconds of a round; more on a busy machine (40).")
    given = parser.parse_args()
    if given.list:
        print("\n".join(fault.name for fault in FAULTS))
        return
    names = [fault.name for fault in FAULTS] if given.only is None else given.only.split(",")
    if unknown := set(names) - {fault.name for fault in FAULTS}:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; --list names them")
    chosen = [fault for fault in FAULTS if fault.name in names]
    console = Console(stderr=True)
    print(table(run_all(chosen, given.json, fleets=given.fleets, deadline=given.deadline, console=console)))


if __name__ == "__main__":
    main()
