"""What Flower's SuperNode says on its log, in its words of releases 1.41 and 1.42, as events."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# Before every line of the SuperNode itself: the programs that it starts use the same words of their connection to it.
MARK = "supernode: "
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Sign(StrEnum):
    """What a line of the log says about the connection."""

    CONNECTED = "connected"
    LOST = "connection lost"
    RECONNECTED = "connected again"
    RECEIVED = "message received"
    SENT = "reply sent"
    TLS_FAILED = "TLS failed"
    EXIT_CODE = "exit code"
    SERVER_CODE = "server code"


@dataclass(frozen=True)
class Said:
    """A sign, and the number or word in its line."""

    sign: Sign
    detail: str = ""


_SIGNS: tuple[tuple[re.Pattern[str], Sign], ...] = (
    (re.compile(r"SuperNode ID: (\d+)"), Sign.CONNECTED),
    (re.compile(r"Connection attempt failed, retrying in ([\d.]+)"), Sign.LOST),
    (re.compile(r"Connection successful after ([\d.]+)"), Sign.RECONNECTED),
    (re.compile(r"Receiving: (\w+) message"), Sign.RECEIVED),
    (re.compile(r"(Sent successfully)"), Sign.SENT),
    (re.compile(r"(SSL/TLS handshake error)"), Sign.TLS_FAILED),
    (re.compile(r"Exit Code: (\d+)"), Sign.EXIT_CODE),
    (re.compile(r"^\[code: (\d+)\]"), Sign.SERVER_CODE),
)


def plain(line: str) -> str:
    """Return a line without colours and the end of line."""
    return _COLOURS.sub("", line).rstrip()


def read_line(line: str) -> Said | None:
    """Return what a line says, None if it is not the SuperNode's or nothing that matters here."""
    if not line.startswith(MARK):
        return None
    text = plain(line).removeprefix(MARK)
    for pattern, sign in _SIGNS:
        found = pattern.search(text)
        if found is not None:
            return Said(sign, found[1])
    return None


class LastWords:
    """What a SuperNode that ended had said about why."""

    # Of flwr.supercore.exit.ExitCode and flwr.supercore.error.ApiErrorCode; a test compares them.
    NOT_ADMITTED, VERSION_MISMATCH, ACTIVATION_FAILED = 305, 606, 2004

    def __init__(self, said: Iterable[Said]) -> None:
        """Take what was said, in order."""
        seen = list(said)
        codes = [int(one.detail) for one in seen if one.sign is Sign.EXIT_CODE]
        self.exit_code = codes[-1] if codes else None
        self.refused = self.exit_code == self.NOT_ADMITTED and any(
            one.sign is Sign.SERVER_CODE and int(one.detail) == self.ACTIVATION_FAILED for one in seen
        )
        self.other_version = self.exit_code == self.VERSION_MISMATCH
        self.tls_failed = any(one.sign is Sign.TLS_FAILED for one in seen)
