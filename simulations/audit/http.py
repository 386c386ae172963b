"""What a device sends on one connection, taken apart into HTTP requests: line, headers, body."""

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from simulations.audit.leaves import FRAMING, Leaf, shown

_END = b"\r\n"
_BLANK = b"\r\n\r\n"
_LARGEST_HEAD = 1 << 16
_PROTOBUF = "application/protobuf"
_LINE = re.compile(r"(POST|GET) (/v1/fleet(?:/[a-z-]+)?) HTTP/1\.1")
# What each header says and the form that it has to have; what is not here may not be sent.
_HEADERS: dict[str, tuple[str, re.Pattern[str]]] = {
    "host": ("the server's address, as in the node file", re.compile(r"[\w.:\[\]-]+")),
    "accept": ("kind of answer that is understood", re.compile(_PROTOBUF)),
    "accept-encoding": ("compressions that are understood", re.compile(r"identity|gzip(, (deflate|br|zstd))*")),
    "connection": ("whether the connection stays open", re.compile(r"keep-alive|close")),
    "user-agent": ("name and version of the HTTP library", re.compile(r"python-httpx/[\d.]+")),
    "content-type": ("kind of the body", re.compile(_PROTOBUF)),
    "content-length": ("length of the body", re.compile(r"\d+")),
    "flwr-package-name": ("Flower's name", re.compile(r"flwr")),
    "flwr-package-version": ("Flower's version", re.compile(r"[\d.]+(rc\d+)?")),
    "flwr-component-name": ("Flower's part that speaks", re.compile(r"supernode|SuperNode")),
    "flwr-public-key": ("the node's public key, from enrolment", re.compile(r"[A-Za-z0-9+/]+=*")),
    "flwr-timestamp": ("when the request was made", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")),
    "flwr-signature": ("of that time, by the node's key", re.compile(r"[A-Za-z0-9+/]+=*")),
}


@dataclass
class Request:
    """A request. body: place of its body in raw. cut_off: connection or recording ended before it did."""

    raw: bytes
    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: int = 0
    seconds: float = 0.0
    cut_off: bool = False
    leaves: list[Leaf] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def split_requests(stream: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each request in what a connection carried, and whether it was cut off."""
    place = 0
    while place < len(stream):
        head = stream.find(_BLANK, place, place + _LARGEST_HEAD)
        if head < 0:
            yield place, len(stream), True
            return
        found = re.search(rb"\r\ncontent-length: (\d{1,12})\r\n", stream[place : head + 2].lower())
        end = head + len(_BLANK) + (int(found[1]) if found else 0)
        yield place, min(end, len(stream)), end > len(stream)
        place = end


def read_request(raw: bytes, *, seconds: float, cut_off: bool, server: str) -> Request:
    """Return a request with the fields of its line and headers. server: HOST:PORT that it has to go to."""
    request = Request(raw, seconds=seconds, cut_off=cut_off)
    end = raw.find(_BLANK)
    request.body = len(raw) if end < 0 else end + len(_BLANK)
    place = 0
    for number, line in enumerate(raw[: request.body].split(_END)[:-1]):
        size = len(line) + len(_END)
        if line and number == 0:
            _read_line(request, line.decode("latin-1"), size)
        elif line:
            _read_header(request, line.decode("latin-1"), place, size)
        elif place < request.body:
            request.leaves.append(Leaf("end of the headers", place, size, FRAMING))
        place += size
    if place < request.body:  # the last line of a head that was cut off
        request.leaves.append(Leaf("cut-off line", place, request.body - place, "part of a header", "cut off"))
    _check_headers(request, server)
    return request


def _read_line(request: Request, line: str, size: int) -> None:
    found = _LINE.fullmatch(line)
    if found is not None:
        request.method, request.path = found[1], found[2]
    meaning = "what is asked of the server" if found is not None else None
    request.leaves.append(Leaf("request line", 0, size, meaning, line))


def _read_header(request: Request, line: str, place: int, size: int) -> None:
    name, _, value = line.partition(": ")
    name = name.lower()
    meaning, form = _HEADERS.get(name, (None, re.compile("")))
    request.leaves.append(Leaf(f"header {name}", place, size, meaning, shown(value)))
    if meaning is not None and form.fullmatch(value) is None:
        request.problems.append(f"header {name}: {value!r} is not of its form")
    if name in request.headers:
        request.problems.append(f"header {name}: more than once")
    request.headers[name] = value


def _check_headers(request: Request, server: str) -> None:
    """Note what in the headers does not fit together: a value that says nothing could hide something."""
    headers = request.headers
    if request.cut_off:
        return
    if headers.get("host") not in (server, server.removesuffix(":443")):
        request.problems.append(f"header host: {headers.get('host')!r}, expected {server}")
    if request.method == "POST" and not _is_signed(headers):
        request.problems.append("header flwr-signature: not that of the time by the key")


def _is_signed(headers: dict[str, str]) -> bool:
    try:
        key = load_pem_public_key(b64decode(headers["flwr-public-key"], validate=True))
        signature = b64decode(headers["flwr-signature"], validate=True)
        if not isinstance(key, EllipticCurvePublicKey):
            return False
        key.verify(signature, headers["flwr-timestamp"].encode("ascii"), ECDSA(SHA256()))
    except (KeyError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
