"""Serves the status page until it is told to stop."""

import socket
from pathlib import Path

import typer
import uvicorn

from deployment.status.app import is_loopback, make_app
from personalization.errors import UserError

_BACKLOG = 64
_STOP_SECONDS = 3


def run_status(state: Path, host: str = "127.0.0.1", port: int = 8081) -> None:
    """Serve the page for the state folder `state` on `host` and `port` until SIGINT or SIGTERM.

    port: 0 takes one that is free; a line on standard output says which. Raises UserError if it can't listen there.
    """
    if state.exists() and not state.is_dir():
        raise UserError(f"{state}: a file; expected the state folder of fedsieve serve")
    app = make_app(state, host=host)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        if not is_loopback(host):
            typer.echo(f"warning: the page has no password; whoever reaches {shown} can read it", err=True)
        typer.echo(f"status page of {state}: http://{shown}:{listening.getsockname()[1]}/")
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        uvicorn.Server(settings).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port`, 0 for one that is free. Raises UserError if it can't."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{host}:{port}: cannot listen there ({why}); expected an address of this machine and a free port, "
            "give others with --host and --port"
        ) from error
