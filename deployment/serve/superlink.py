"""The process that `fedsieve serve` starts as SuperLink: Flower's own, with more patience for its database.

A model goes through the database in pieces: of a language model hundreds of megabytes. On a slow disk whoever wants to
write meanwhile waits longer than the 5 s after which Flower gives up, with an error that ends the run.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

PATIENCE_MILLISECONDS = 120_000
_PRAGMA = "busy_timeout"


def main() -> None:
    """Run the SuperLink with this process's arguments."""
    from flwr.superlink.cli import flower_superlink

    sql_mixin: Any = importlib.import_module("flwr.supercore.sql_mixin")
    sql_mixin.SQLITE_PRAGMAS = patient(sql_mixin.SQLITE_PRAGMAS)
    sys.argv[0] = "flower-superlink"
    flower_superlink()


def patient(pragmas: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the settings of a connection to the database, with more time to wait for who writes."""
    return tuple((name, str(PATIENCE_MILLISECONDS) if name == _PRAGMA else value) for name, value in pragmas)


if __name__ == "__main__":
    main()
