"""Processes that compute with one thread each, started where torch and all the rest is loaded already."""

import importlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from personalization.errors import UserError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Loading these takes seconds of processor time, which the fork server spends once for all processes.
_LOADED = ["simulations.comparison.plan", "simulations.comparison.cell"]


def start(target: Callable[..., None], *arguments: str) -> tuple[Any, Connection]:
    """Start a process that runs `target(connection, *arguments)`; return it and the other end of the connection."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    ours, theirs = context.Pipe()
    with _one_thread_each():
        process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        process.start()
    theirs.close()
    return process, ours


def call_apart(function: str, arguments: Mapping[str, Any]) -> Any:
    """Return what `function` (`module:name`) returns for keyword `arguments`, computed in a process of its own.

    Both must be what JSON can hold. Raises UserError if the function does, and RuntimeError with the other process's
    message for anything else that it raises.
    """
    process, connection = start(_answer, function, json.dumps(arguments))
    try:
        answer = json.loads(connection.recv_bytes())
    except EOFError as error:
        process.join()
        raise RuntimeError(f"{function}: its process ended with exit code {process.exitcode}") from error
    finally:
        connection.close()
    process.join()
    if "mistake" in answer:
        raise UserError(answer["mistake"])
    return answer["result"]


def find(function: str) -> Callable[..., Any]:
    """Return the function called `module:name`. Raises ImportError and AttributeError."""
    module, name = function.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _answer(connection: Connection, function: str, arguments: str) -> None:
    try:
        answer = {"result": find(function)(**json.loads(arguments))}
    except UserError as error:
        answer = {"mistake": str(error)}
    connection.send_bytes(json.dumps(answer, allow_nan=False).encode())


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The libraries read this when they are loaded: in the fork server, which starts with the first process."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
