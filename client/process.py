"""What Flower's `flwr-clientapp` does, with fewer imports: a file to be run with `python -P`, by no other module.

Flower's own command imports its SuperNode first, with a database and a web server, which the process that answers a
message never uses. This file must not import anything of ours: what runs is the program that came with the run, and a
module that is already there would take its place.
"""

import argparse
import gc
import os
import signal
from types import FrameType
from typing import Any

# Nearly all that imports make stays until the end. Python's default looks for garbage among it hundreds of times.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> None:
    """Ask the SuperNode for a message, answer it and end, as `flwr-clientapp` with the same options does."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    from flwr.common.args import try_obtain_flwr_app_token
    from flwr.supercore.tls import validate_and_resolve_root_certificates
    from flwr.supernode.runtime import run_clientapp as runtime

    arguments = parser().parse_args()
    _end_at_once_when_told(runtime)
    runtime.run_clientapp(
        runtime_api_address=arguments.runtime_api_address,
        token=try_obtain_flwr_app_token(arguments),
        insecure=arguments.insecure,
        certificates=validate_and_resolve_root_certificates(arguments.root_certificates, arguments.insecure),
        parent_pid=arguments.parent_pid,
        runtime_dependency_install=arguments.runtime_dependency_install,
    )


def _end_at_once_when_told(runtime: Any) -> None:
    """Let SIGTERM end this process like SIGKILL does, from the time on when Flower's `runtime` sets its own handlers.

    Flower's handler tells the SuperNode that the task is over, and the SuperNode then waits for ever for a reply to the
    task's message, and takes no other. Of a process that just falls silent it gives the message up within a minute.
    """
    register = runtime.register_signal_handlers

    def register_and_replace(*arguments: Any, **named: Any) -> None:
        register(*arguments, **named)
        signal.signal(signal.SIGTERM, _end)

    runtime.register_signal_handlers = register_and_replace


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def parser() -> argparse.ArgumentParser:
    """Return the options that a SuperNode starts the process with: Flower's own."""
    from flwr.common.args import add_args_flwr_app_common
    from flwr.supercore.constant import SUPERNODE_DEFAULT_CLIENT_ADDRESS

    options = argparse.ArgumentParser(prog="flwr-clientapp", description="Run a Flower ClientApp")
    options.add_argument("--runtime-api-address", default=SUPERNODE_DEFAULT_CLIENT_ADDRESS)
    add_args_flwr_app_common(parser=options)
    return options


if __name__ == "__main__":
    main()
