"""The fleet folder: which files it holds, and the record of who belongs to the fleet."""

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deployment.certificates import general_name
from personalization.errors import UserError
from personalization.system.files import write_atomically
from personalization.system.private_files import check_private, read_private

FORMAT = 1
RECORD = "fleet.json"
AUTHORITY_KEY, AUTHORITY, SERVER_KEY, SERVER = "authority.key", "authority.crt", "server.key", "server.crt"
SIGNING_KEY, NODES = "signing-key.json", "nodes"
DEFAULT_PORT = 8443
_NODE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RESERVED = frozenset({"authority", "server"})


@dataclass(frozen=True, kw_only=True)
class Node:
    """A device. node: its id, which follows from its key. public_key: in OpenSSH form. Times are ISO 8601, UTC.

    revoked: when its key was revoked, None while it belongs to the fleet.
    """

    name: str
    node: str
    public_key: str
    enrolled: str
    revoked: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What a fleet folder's record says.

    fleet: the fleet's id. server: host:port as devices reach it. names: all names in the server's certificate. model:
    root hash (hexadecimal) of the only backbone that devices take, None for any that the server signs.
    """

    folder: Path
    fleet: str
    server: str
    names: tuple[str, ...]
    model: str | None
    nodes: tuple[Node, ...]

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return self.folder / name

    def node_file(self, name: str) -> Path:
        """Return where the file to be carried to a node stands until it is."""
        return self.folder / NODES / f"{name}.json"

    def public_key_file(self, name: str) -> Path:
        """Return where the public key of a node stands, for `flwr supernode register`."""
        return self.folder / NODES / f"{name}.pub"

    def find(self, name: str) -> Node | None:
        """Return a node by name, also one that was revoked."""
        return next((node for node in self.nodes if node.name == name), None)

    @property
    def active(self) -> tuple[Node, ...]:
        """The nodes that a server registers."""
        return tuple(node for node in self.nodes if node.revoked is None)

    @property
    def revoked(self) -> tuple[Node, ...]:
        """The nodes that a server has to refuse."""
        return tuple(node for node in self.nodes if node.revoked is not None)

    def with_node(self, node: Node) -> "Fleet":
        """Return the fleet with a node added or put in the place of the one of its name."""
        others = [other for other in self.nodes if other.name != node.name]
        return replace(self, nodes=tuple(sorted([*others, node], key=lambda one: one.name)))

    def save(self) -> None:
        """Write the record, atomically. Raises OSError."""
        record = {"format": FORMAT, **asdict(self)}
        del record["folder"]
        write_atomically(self.path(RECORD), json.dumps(record, indent=1).encode())


def read_fleet(folder: Path) -> Fleet:
    """Return the record of a fleet folder. Raises UserError if there is none, or it is damaged or open to others."""
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder}: no fleet here; to make one: fedsieve enroll {folder} --server HOST:PORT")
    check_private(folder, "fleet folder")
    try:
        record = json.loads(read_private(path, "fleet record"))
        if record.pop("format") != FORMAT:
            raise UserError(f"{path}: written by another version of fedsieve; use that version")
        return _fleet(folder, record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged; restore it from a backup of the fleet folder") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from changing a fleet folder. Raises UserError if one is at it."""
    with (folder / ".lock").open("w") as file:
        (folder / ".lock").chmod(0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another fedsieve enroll is changing this fleet; try again") from None
        yield


def check_node_name(name: str) -> None:
    """Raise UserError for what can't be a node's name."""
    if not _NODE_NAME.fullmatch(name) or name in _RESERVED:
        raise UserError(
            f"node name {name!r}: expected small letters, digits, - and _ (63 at most), and not authority or server"
        )


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST`, `HOST:PORT` or `[IPv6]:PORT`; without a port it is 8443. Raises UserError."""
    found = re.fullmatch(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?", address)
    port = int((found and found["port"]) or DEFAULT_PORT)
    if found is None or not 1 <= port <= 65535:
        raise UserError(f"server address {address!r}: expected HOST:PORT, such as edge.example.org:8443 or [::1]:8443")
    host = str(general_name(found["v6"] or found["host"]).value)
    return host, port


def format_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fleet(folder: Path, record: dict[str, Any]) -> Fleet:
    nodes = tuple(Node(**node) for node in record["nodes"])
    return Fleet(folder=folder, **{**record, "nodes": nodes, "names": tuple(record["names"])})
