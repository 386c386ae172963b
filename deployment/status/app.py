"""The status page as a web application: four addresses to read, nothing to change."""

import ipaddress
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from deployment.status.metrics import metrics_text
from deployment.status.page import POLICY, page
from deployment.status.snapshot import make_snapshot
from deployment.status.sources import State

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = ("GET", "HEAD")


def make_app(state: Path, *, host: str = "127.0.0.1") -> FastAPI:
    """Return the application for the state folder of a serve, which need not exist yet.

    host: where it will listen. On loopback it answers only requests that were sent to a loopback name: a page from
    elsewhere, whose name its owner points at 127.0.0.1, cannot read this one (DNS rebinding).
    """
    folder = State(state)
    app = FastAPI(title="fedsieve status", docs_url=None, redoc_url=None, openapi_url=None)

    def snapshot() -> dict[str, Any]:
        return make_snapshot(*folder.read())

    def show_page() -> HTMLResponse:
        return HTMLResponse(page(snapshot()))

    def show_json() -> Response:
        return Response(json.dumps(snapshot(), indent=1, allow_nan=False), media_type="application/json")

    def show_metrics() -> Response:
        return Response(metrics_text(snapshot()), headers={"Content-Type": _METRICS_TYPE})

    def show_health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    for path, show in (("/", show_page), ("/status.json", show_json), ("/metrics", show_metrics)):
        app.add_api_route(path, show, methods=list(_METHODS), response_model=None)
    app.add_api_route("/healthz", show_health, methods=list(_METHODS), response_model=None)
    _guard(app, only_loopback=is_loopback(host))
    return app


def is_loopback(host: str) -> bool:
    """Return whether `host` (a name or an address, brackets of IPv6 left out) is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def host_name(header: str) -> str:
    """Return the name or address in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _guard(app: FastAPI, *, only_loopback: bool) -> None:
    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if only_loopback and not is_loopback(host_name(request.headers.get("host", ""))):
            response: Response = PlainTextResponse("421: ask for this page by a loopback name\n", status_code=421)
        else:
            response = await answer(request)
        response.headers.update(_HEADERS)
        return response
