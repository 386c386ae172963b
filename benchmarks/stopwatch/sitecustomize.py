"""Notes when a process gets the result of its first masked forward pass; python imports this by its name at the start.

Only in processes whose PYTHONPATH has this folder and whose STOPWATCH names a file: a line for each, with the clock
(CLOCK_MONOTONIC, seconds, which all processes share) and when the kernel started it.
"""

import json
import os
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_WATCHED = "personalization.cutting.masked"


def _since_start() -> float:
    """Return when this process was started, on the monotonic clock in seconds; exact to a tick of the kernel."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return (
        ticks / os.sysconf("SC_CLK_TCK")
        + time.clock_gettime(time.CLOCK_MONOTONIC)
        - time.clock_gettime(time.CLOCK_BOOTTIME)
    )


def _watch(module: Any) -> None:
    forward = module.outputs_of

    def first(*arguments: Any) -> Any:
        result = forward(*arguments)
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        module.outputs_of = forward
        line = {"probe": now, "start": _since_start(), "modules": sorted({m.partition(".")[0] for m in sys.modules})}
        with open(os.environ["STOPWATCH"], "a") as file:
            file.write(json.dumps(line) + "\n")
        return result

    module.outputs_of = first


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, _target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == _WATCHED else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_watch(module: Any) -> None:
                execute(module)
                _watch(module)

            spec.loader.exec_module = execute_and_watch  # type: ignore[method-assign]
        return spec


if "STOPWATCH" in os.environ:
    sys.meta_path.insert(0, _Finder)
