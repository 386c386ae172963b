"""A fleet with one node, its images, and a server that answers over TLS as a proxy would."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from client.node_file import NodeFile, read_node_file
from deployment.certificates import (
    certificate_bytes,
    issue_authority,
    issue_server,
    key_bytes,
    make_tls_key,
    utc_now,
)
from deployment.command import Enrolment, enroll

AUTHORITY_KEY, OTHER_KEY, SERVER_KEY = make_tls_key(), make_tls_key(), make_tls_key()


def node_file(folder: Path, name: str = "hall", server: str = "localhost:9") -> Path:
    enroll(folder / "fleet", Enrolment(server=server, nodes=[name]))
    return folder / "fleet" / "nodes" / f"{name}.json"


def any_node(tmp_path: Path, port: int, *, host: str = "localhost", authority_now: datetime | None = None) -> NodeFile:
    """A node of the fleet of `AUTHORITY_KEY` whose server is at a port of this machine."""
    authority = issue_authority(AUTHORITY_KEY, "f", now=authority_now or utc_now())
    own = read_node_file(node_file(tmp_path))
    return replace(own, server=f"{host}:{port}", authority=certificate_bytes(authority).decode())


def write_images(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@contextmanager
def tls_server(
    folder: Path,
    answer: Callable[[], bytes],
    *,
    names: Sequence[str] = ("localhost", "127.0.0.1"),
    signed_by=AUTHORITY_KEY,
    days: int = 30,
    made: timedelta = timedelta(0),
) -> Iterator[int]:
    """Serve what `answer` returns to whoever completes a handshake; yields the port. made: when, from now."""
    now = utc_now() + made
    authority = issue_authority(signed_by, "f", now=now)
    certificate = issue_server(
        SERVER_KEY.public_key(), names, authority=authority, authority_key=signed_by, days=days, now=now
    )
    (folder / "s.crt").write_bytes(certificate_bytes(certificate))
    (folder / "s.key").write_bytes(key_bytes(SERVER_KEY))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "s.crt", folder / "s.key")
    with plain_server(lambda connection: _speak(context, connection, answer)) as port:
        yield port


@contextmanager
def plain_server(speak) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        speak(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _speak(context: ssl.SSLContext, connection: socket.socket, answer: Callable[[], bytes]) -> None:
    with context.wrap_socket(connection, server_side=True) as secure:
        secure.recv(65536)
        secure.sendall(answer())
