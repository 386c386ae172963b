"""Files that hold a secret: read only if nobody but their owner can read them."""

from pathlib import Path

from personalization.errors import UserError

_OTHERS = 0o077


def read_private(path: Path, what: str) -> bytes:
    """Return the contents of a file that only its owner may open; `what` names it in errors, such as "node file".

    Raises UserError if it is missing, can't be read, or is open to others.
    """
    try:
        with path.open("rb") as file:
            check_private(path, what)
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a {what}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a {what} that can be read") from None


def check_private(path: Path, what: str) -> None:
    """Raise UserError if anybody but the owner of a file or folder has permissions on it. Raises OSError."""
    mode = path.stat().st_mode & 0o777
    if mode & _OTHERS:
        wanted = "700" if path.is_dir() else "600"
        raise UserError(f"{path}: this {what} is open to other users (mode {mode:03o}); run: chmod {wanted} {path}")
