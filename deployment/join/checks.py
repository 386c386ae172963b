"""What can be told before anything is started: the device's data, its state, its lock."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from client.node_file import NodeFile
from deployment.join.layout import OWNER
from personalization.errors import UserError
from personalization.files import write_atomically

_LOCK = ".join.lock"
_IMAGES_CHECKED = 64


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


def check_data(data: Path) -> int:
    """Return how many images are in a device's data. Raises UserError if there are none, or they cannot be read.

    Of many images 64 are decoded, evenly spread; what they are to the model is only known once there is one.
    """
    from personalization.image_data import check_images, class_folders, image_files, read_npz

    if data.suffix == ".npz" and data.is_file():
        return len(check_images(read_npz(data, ("images",)).get("images"), data, "images"))
    if not data.is_dir():
        raise UserError(f"{data}: no such data folder or .npz file")
    try:
        files, folders = image_files(data), class_folders(data)
        if files and folders:
            raise UserError(f"{data}: images beside folders ({folders[0].name}); expected either images or folders")
        files += [file for folder in folders for file in image_files(folder)]
    except OSError as error:
        raise UserError(f"{error.filename or data}: {error.strerror}; expected a folder that can be read") from None
    if not files:
        raise UserError(f"{data}: no images in it; expected files like .png or .jpg, or class folders of them")
    _decode(files)
    return len(files)


def _decode(files: Sequence[Path]) -> None:
    from personalization.images import read_image

    count = min(len(files), _IMAGES_CHECKED)
    for number in range(count):
        read_image(files[number * len(files) // count])
