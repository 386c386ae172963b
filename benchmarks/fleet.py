"""What the simulator costs beside the work itself: `python -m benchmarks.fleet [--json]`.

Rows: a plain loop that calls `personalize` for every client-round, the in-process engine and Flower's Ray engine doing
the same; then the peak memory of the in-process engine with 50 and with 500 clients of little work each. CPU time is
that of the whole process tree. Every figure is taken in a process of its own, with one thread for each process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.process_tree import TreeUsage, watch
from client.app import make_app as make_client_app
from client.data import InputFacts
from personalization.model_files.backbone import load_backbone
from personalization.pipeline import personalize
from server.app import make_app as make_server_app
from simulations.engine import run_in_process
from simulations.fleet_settings import FleetSettings
from simulations.private_data import make_fleet_data

LEAST_RATIO, LARGEST_GROWTH = 0.9, 1.1
_SMALL, _LARGE = 50, 500


def main() -> None:
    """Print the table; end with 1 if a limit is not met."""
    parser = argparse.ArgumentParser(description="Cost of the simulator beside the work itself.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--clients", type=int, default=20, help="clients of the timed fleets")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the timed fleets, before the final pass")
    parser.add_argument("--without-ray", action="store_true", help="leave out Flower's Ray engine")
    parser.add_argument("--part", choices=sorted(_PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(_PARTS[arguments.part](arguments.clients, arguments.rounds)))
        return
    result = measure(arguments.clients, arguments.rounds, with_ray=not arguments.without_ray)
    print(json.dumps(result, indent=1)) if arguments.json else _print(result)
    raise SystemExit(
        result["ratio_in_process"] < LEAST_RATIO or result["memory_growth"] > LARGEST_GROWTH,
    )


def measure(clients: int, rounds: int, *, with_ray: bool) -> dict[str, Any]:
    """Return the figures: seconds of CPU per client-round, ratios to the plain loop, and bytes of memory."""
    own = _run("timed", clients, rounds)[0]
    result: dict[str, Any] = {
        "client_rounds": own["client_rounds"],
        "cpu_seconds_plain": own["plain"],
        "cpu_seconds_in_process": own["engine"],
        "ratio_in_process": own["plain"] / own["engine"],
    }
    if with_ray:
        found, usage = _run("ray", clients, rounds)
        result["cpu_seconds_ray"] = usage.cpu_seconds / found["client_rounds"]
        result["ratio_ray"] = own["plain"] / result["cpu_seconds_ray"]
        result["memory_bytes_ray"] = usage.peak_memory_bytes
    for count in (_SMALL, _LARGE):
        result[f"memory_bytes_{count}"] = _run("memory", count, 1)[0]["peak_memory_bytes"]
    result["memory_growth"] = result[f"memory_bytes_{_LARGE}"] / result[f"memory_bytes_{_SMALL}"]
    return result


def _run(part: str, clients: int, rounds: int) -> tuple[dict[str, Any], TreeUsage]:
    command = [sys.executable, "-m", "benchmarks.fleet", "--part", part, f"--clients={clients}", f"--rounds={rounds}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        output, usage = watch(process)
    if process.returncode:
        raise SystemExit(f"benchmarks.fleet --part {part} failed with {process.returncode}")
    return json.loads(output.strip().splitlines()[-1]), usage


def _config(clients: int, rounds: int, out: str, **changes: Any) -> dict[str, Any]:
    return FleetSettings(clients=clients, rounds=rounds, out=Path(out), **changes).run_config()


def _timed(clients: int, rounds: int) -> dict[str, Any]:
    """Run the fleet in process; beside each call of a client, make the same one as a plain loop would.

    On a shared machine CPU time itself drifts by a tenth within minutes, so both are taken within the same seconds.
    Whichever call comes second finds warm caches: they take turns.
    """
    plain: list[float] = []

    def twice(*arguments: Any, **named: Any) -> Any:
        seconds, results = zip(*(_cpu_seconds(lambda: personalize(*arguments, **named)) for _ in range(2)), strict=True)
        plain.append(seconds[len(plain) % 2])
        return results[0]

    _fleet(min(2, clients), 1, personalize)  # warm up: first calls load libraries
    both, _ = _cpu_seconds(lambda: _fleet(clients, rounds, twice))
    calls, loop = len(plain), sum(plain)
    return {"client_rounds": calls, "engine": (both - loop) / calls, "plain": loop / calls}


def _memory(clients: int, rounds: int) -> dict[str, Any]:
    import resource

    _fleet(clients, rounds, personalize, samples=16, probes=1, recovery="fold", fraction=0.1)
    return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _ray(clients: int, rounds: int) -> dict[str, Any]:
    from simulations.engine_ray import run_under_ray

    with tempfile.TemporaryDirectory() as out:
        config = _config(clients, rounds, out)
        asked: list[int] = []
        server = make_server_app(config=config, on_round=lambda record: asked.append(record["clients_replied"]))
        run_under_ray(server, make_client_app(config=config), clients=clients)
    return {"client_rounds": sum(asked)}


def _fleet(clients: int, rounds: int, work: Callable[..., Any], **changes: Any) -> None:
    with tempfile.TemporaryDirectory() as out:
        config = _config(clients, rounds, out, **changes)
        backbone = load_backbone(config["model"])
        data = make_fleet_data(config, clients, InputFacts(backbone.preprocessing, backbone.labels))
        run_in_process(make_server_app(), make_client_app(data, personalize=work), clients=clients, run_config=config)


def _cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def _print(result: dict[str, Any]) -> None:
    table = Table("engine", "CPU ms per client-round", "plain / engine", "to reach", title="Cost of the simulator")
    table.add_row("plain loop of personalize()", f"{1e3 * result['cpu_seconds_plain']:.0f}", "1.00", "")
    in_process = f"{1e3 * result['cpu_seconds_in_process']:.0f}"
    table.add_row("in process", in_process, f"{result['ratio_in_process']:.2f}", f"{LEAST_RATIO:.2f}")
    if "cpu_seconds_ray" in result:
        table.add_row("Flower, Ray", f"{1e3 * result['cpu_seconds_ray']:.0f}", f"{result['ratio_ray']:.2f}", "")
    Console().print(table)
    small, large = (result[f"memory_bytes_{count}"] / 2**20 for count in (_SMALL, _LARGE))
    growth = f"{result['memory_growth']:.3f}, at most {LARGEST_GROWTH}"
    print(f"peak memory in process: {_SMALL} clients {small:.0f} MiB, {_LARGE} clients {large:.0f} MiB ({growth})")
    if "memory_bytes_ray" in result:
        print(f"peak memory under Ray, all processes: {result['memory_bytes_ray'] / 2**20:.0f} MiB")


_PARTS: dict[str, Callable[[int, int], dict[str, Any]]] = {"timed": _timed, "memory": _memory, "ray": _ray}

if __name__ == "__main__":
    main()
