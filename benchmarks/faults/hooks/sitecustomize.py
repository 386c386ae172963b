"""Lets `benchmarks.faults` catch a process in a phase of a round; python imports this by its name at the start.

Only in processes whose PYTHONPATH has this folder and whose FAULTS_FOLDER names one. A process that enters a phase
whose file `arm-PHASE` is there takes that file away, writes its id to `at-PHASE` and stops itself (SIGSTOP), until it
is killed or told to go on. While there is a file `clock`, its number of seconds is added to the process's clock.
"""

import contextlib
import datetime
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))
# A reply or a plan is some kilobytes; only the backbone's tensors are larger.
_WEIGHTS_BYTES = 100_000


def _reach(phase: str) -> None:
    armed = _FOLDER / f"arm-{phase}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(armed, _FOLDER / f"taken-{phase}")  # only one process gets it
        (_FOLDER / f"new-{phase}").write_text(str(os.getpid()))
        os.rename(_FOLDER / f"new-{phase}", _FOLDER / f"at-{phase}")
        os.kill(os.getpid(), signal.SIGSTOP)


def _before(owner: Any, name: str, phase: str) -> None:
    call = getattr(owner, name)

    def reach(*arguments: Any, **named: Any) -> Any:
        _reach(phase)
        return call(*arguments, **named)

    setattr(owner, name, reach)


def _supernode(module: Any) -> None:
    _before(module, "http_request_response", "enrolment")
    _before(module, "push_object_contents_from_iterable", "upload")
    pull = module.pull_objects

    def pull_and_reach(*arguments: Any, pull_object_fn: Callable[[str], bytes], **named: Any) -> Any:
        def one(object_id: str) -> bytes:
            content = pull_object_fn(object_id)
            if len(content) > _WEIGHTS_BYTES:
                _reach("download")
            return content

        return pull(*arguments, pull_object_fn=one, **named)

    module.pull_objects = pull_and_reach


def _pipeline(module: Any) -> None:
    _before(module, "_prune", "pruning")
    take = module.take_samples

    def take_and_reach(*arguments: Any, measure: Callable[[Any], float], **named: Any) -> Any:
        def one(result: Any) -> float:
            _reach("probing")
            return measure(result)

        return take(*arguments, measure=one, **named)

    module.take_samples = take_and_reach


def _backbone(module: Any) -> None:
    store = module._store

    def reach_and_store(content: Any, *arguments: Any) -> Any:
        if module.read_manifest(content) is not None:
            _reach("storing")
        return store(content, *arguments)

    module._store = reach_and_store


_WATCHED: dict[str, Callable[[Any], None]] = {
    "flwr.supernode.start_client_internal": _supernode,
    "personalization.pipeline": _pipeline,
    "client.backbone": _backbone,
    "client.work": lambda module: _before(module, "reply_content", "answering"),
    "server.rounds": lambda module: _before(module.FleetServer, "_learn", "aggregation"),
}


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, _target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in _WATCHED else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_watch(module: Any) -> None:
                execute(module)
                _WATCHED[name](module)

            spec.loader.exec_module = execute_and_watch  # type: ignore[method-assign]
        return spec


def _shift() -> float:
    try:
        return float((_FOLDER / "clock").read_text())
    except (OSError, ValueError):
        return 0.0


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _real)


_real = datetime.datetime


class _ShiftedDatetime(_real, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _real.now(tz) + datetime.timedelta(seconds=_shift())


def _shift_clock() -> None:
    real_time = time.time
    time.time = lambda: real_time() + _shift()
    datetime.datetime = _ShiftedDatetime  # type: ignore[misc]


if "FAULTS_FOLDER" in os.environ:
    sys.meta_path.insert(0, _Finder)
    if "FAULTS_CLOCK" in os.environ:
        _shift_clock()
