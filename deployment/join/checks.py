"""What can be told of a state before anything is started: whose it is, and that nobody else is at it."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from client.node_file import NodeFile
from deployment.join.layout import OWNER
from personalization.errors import UserError
from personalization.system.files import write_atomically

_LOCK = ".join.lock"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose a state folder is. online: the server was last told that this node is there, and not yet that it is not."""

    fleet: str
    name: str
    node: str
    online: bool = False

    def with_online(self, online: bool, state: Path) -> "Owner":
        """Return it with `online`, once it is written. Raises OSError."""
        changed = replace(self, online=online)
        if changed != self:
            changed.save(state)
        return changed

    def save(self, state: Path) -> None:
        """Write it into the state folder, atomically. Raises OSError."""
        write_atomically(state / OWNER, json.dumps(asdict(self), indent=1).encode())


def claim_state(state: Path, node: NodeFile) -> Owner:
    """Return the owner of a state folder, who now is this node if it had none. Raises UserError if it is another's."""
    path = state / OWNER
    own = Owner(fleet=node.fleet, name=node.name, node=node.node)
    try:
        found = Owner(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        own.save(state)
        return own
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: damaged; remove it if {state} is the state of {node.name}") from None
    if (found.fleet, found.node) != (own.fleet, own.node):
        raise UserError(
            f"{state}: the state of {found.name} in fleet {found.fleet}, but the node file is of {node.name} in fleet "
            f"{node.fleet}; use that node's file, or another folder with --state"
        )
    return found


@contextlib.contextmanager
def joined(state: Path) -> Iterator[None]:
    """Keep a second join from the same state. Raises UserError if there is one, OSError."""
    with (state / _LOCK).open("w") as file:
        (state / _LOCK).chmod(0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{state}: another fedsieve join runs with this state; end it, or use --state") from None
        yield
