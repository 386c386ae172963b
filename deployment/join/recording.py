"""Keep every byte that a process sends, at the place where it goes into TLS: whichever library sends it, all is there.

An entry is written before its bytes leave: a device that can't record, for want of room, doesn't send. Connections that
the process opens are noted too, and what the server answers, to tell what the device was asked for.
"""

import os
import secrets
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.recording import SUFFIX, Recorder

FORM = "connections"
ENVIRONMENT = "FEDSIEVE_RECORDING"
# A TLS record holds no more, so what is passed on in such parts goes out as a whole or not at all.
_PART = 1 << 14


def recording_file(folder: Path, name: str) -> Path:
    """Return the recording of the node `name` in a folder."""
    return (folder / f"{name}{SUFFIX}").absolute()


def record_process(environment: Mapping[str, str]) -> None:
    """Record this process, if its environment names a recording, and what the server answers it. Raises OSError."""
    if path := environment.get(ENVIRONMENT):
        recorder = Recorder(Path(path), form=FORM, process=os.getpid())
        record_connections(recorder)
        _record_answers(recorder)


def record_connections(recorder: Recorder) -> None:
    """Record what this process sends from now on, on any connection, and where it connects to."""

    class RecordedSocket(ssl.SSLSocket):
        """Notes all that is written to it."""

        def send(self, data: Any, flags: int = 0) -> int:
            """Send, once it is noted, no more than fits one TLS record; returns how many bytes that were."""
            part = bytes(memoryview(data).cast("B")[:_PART])
            recorder.up(part, channel=self._channel())
            return super().send(part, flags)

        def write(self, data: Any) -> int:
            """Send as `send` does."""
            return self.send(data)

        def _channel(self) -> int:
            known: int = self.__dict__.get("recorded_channel", 0)
            if not known:
                known = self.__dict__["recorded_channel"] = 1 + secrets.randbelow((1 << 32) - 1)
                verified = "verified" if self.context.verify_mode == ssl.CERT_REQUIRED else "unverified"
                recorder.connection(known, f"{_address(self.getpeername())} {verified}")
            return known

    ssl.SSLContext.sslsocket_class = RecordedSocket

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto") and arguments[0].family != socket.AF_UNIX:
            recorder.connection(0, _address(arguments[1]))

    sys.addaudithook(note)


def _record_answers(recorder: Recorder) -> None:
    import httpx

    send = httpx.Client.send

    def recorded(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        response = send(client, request, **options)
        if not options.get("stream"):
            recorder.down(response.content, channel=0, path=request.url.path, status=response.status_code)
        return response

    # There is no other place that sees every answer.
    httpx.Client.send = recorded  # type: ignore[method-assign, assignment]


def _address(address: Any) -> str:
    return f"{address[0]}:{address[1]}"
