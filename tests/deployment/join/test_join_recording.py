"""A process that records: what its recording holds is what arrives, byte for byte."""

import json
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client.recording import Kind, read_recording
from deployment.join.recording import ENVIRONMENT

ROOT = Path(__file__).parents[3]
SENDER = """
import http.client, os, socket, ssl, sys
from deployment.join.recording import record_process
record_process(os.environ)
import httpx
port, authority = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=authority)
with httpx.Client(verify=context) as client:
    for size in (0, 10, 50_000):
        client.post(f"https://127.0.0.1:{port}/v1/fleet/x", content=bytes(size))
connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
connection.request("GET", "/v1/fleet")
connection.getresponse().read()
connection.close()
with socket.socket() as plain:
    plain.connect(("127.0.0.1", port))
"""


class Listener:
    """A TLS server that keeps every byte that it reads."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.read = b""
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                inner = self.rfile

                class Tee:
                    closed = False

                    def readline(self, limit: int = -1) -> bytes:
                        return listener.keep(inner.readline(limit))

                    def read(self, size: int) -> bytes:
                        return listener.keep(inner.read(size))

                    def close(self) -> None:
                        inner.close()

                self.rfile = Tee()  # type: ignore[assignment]

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def keep(self, data: bytes) -> bytes:
        self.read += data
        return data

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener(tmp_path):
    command = [sys.executable, "-m", "fedsieve", "enroll", str(tmp_path / "fleet"), "--server", "127.0.0.1:8443"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = Listener(tmp_path / "fleet" / "server.crt", tmp_path / "fleet" / "server.key")
    yield found
    found.stop()


def test_everything_that_is_written_to_tls_is_recorded_whichever_library_sends_it(tmp_path, listener):
    port, path = listener.server.server_address[1], tmp_path / "recording" / "hall.recording"
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), ENVIRONMENT: str(path)}
    command = [sys.executable, "-c", SENDER, str(port), str(tmp_path / "fleet" / "authority.crt")]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    entries = list(read_recording(path))
    assert b"".join(entry.data for entry in entries if entry.kind is Kind.UP) == listener.read
    assert len(listener.read) > 50_000
    peers = {entry.data.decode() for entry in entries if entry.kind is Kind.CONNECTION and entry.channel}
    assert peers == {f"127.0.0.1:{port} verified"}
    plain = [entry.data.decode() for entry in entries if entry.kind is Kind.CONNECTION and not entry.channel]
    assert plain == [f"127.0.0.1:{port}"] * 3  # httpx, http.client, and the socket without TLS
    answers = [entry.down() for entry in entries if entry.kind is Kind.DOWN]
    assert [(facts["path"], facts["status"], body) for facts, body in answers] == [("/v1/fleet/x", 200, b"ok")] * 3
    assert json.loads(entries[0].data)["form"] == "connections"
    assert path.stat().st_mode & 0o777 == 0o600
