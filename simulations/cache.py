"""How work that is done once is shown: what is fetched, and what is converted."""

import sys
from collections.abc import Callable

from rich.console import Console

from personalization.errors import UserError


def run_download(what: str, run: Callable[[], str]) -> None:
    """Run a preparation from the command line, with a spinner on a terminal, and print what it returns.

    A UserError ends the program with one line and exit code 2.
    """
    console = Console(stderr=True)
    try:
        if console.is_terminal:
            with console.status(what):
                line = run()
        else:
            console.print(what, highlight=False, soft_wrap=True)
            line = run()
    except UserError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    print(line)
