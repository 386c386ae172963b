"""`python -m deployment.status STATE`: the status page as a process of its own."""

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from personalization.errors import UserError


def status(
    state: Annotated[Path, typer.Argument(help="State folder of fedsieve serve; it is only read.")],
    host: Annotated[str, typer.Option(help="Address to listen on; anything but loopback shows the page to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes one that is free.", min=0, max=65535)] = 8081,
) -> None:
    """Show what a fleet does: a page at /, the same for machines at /status.json and, for Prometheus, at /metrics."""
    from deployment.status.server import run_status

    # Uvicorn raises the signal that stopped it once more when it is done; being told to stop is no failure.
    signal.signal(signal.SIGTERM, _stop)
    try:
        run_status(state, host, port)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    typer.run(status)
