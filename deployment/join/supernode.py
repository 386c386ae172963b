"""The process that `fedsieve join` starts: Flower's SuperNode, which ends with its parent and never lives on half dead.

Flower's own command stays alive without a connection when its loop breaks off, or when the thread of its heartbeats
dies. Here either ends the process, and `fedsieve join` starts the next one. And it falls behind for good where a run
ends at a bad time: see `turns`.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback

from deployment.join.flower_log import MARK
from deployment.join.recording import record_process
from deployment.join.turns import answer_in_turn

BROKEN_OFF = 70
_PATIENCE_SECONDS = 8.0


def main() -> None:
    """Run the SuperNode with this process's arguments until it ends, or standard input does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.excepthook = _end_with_thread
    record_process(os.environ)
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode

    answer_in_turn(start_client_internal)
    logging.getLogger("flwr").handlers = [_Marked(logging.INFO)]
    sys.argv[0] = "flower-supernode"
    flower_supernode()
    _flush()
    os._exit(BROKEN_OFF)  # its thread that serves the ClientApp would keep the process


class _Marked(logging.Handler):
    """Writes Flower's messages with a mark before each line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        lines = record.getMessage().splitlines()
        sys.stdout.write("".join(f"{MARK}{line}\n" for line in lines))
        sys.stdout.flush()


def _end_with_parent() -> None:
    """The other end of standard input is the parent's alone: it is closed when the parent is gone, however it went."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_SECONDS)
    os._exit(BROKEN_OFF)


def _end_with_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is not SystemExit:
        traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        _flush()
        os._exit(BROKEN_OFF)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
