"""Why a SuperNode ended, and whether starting it again can help."""

import time
from collections.abc import Callable

from client.node_file import NodeFile
from deployment.join.connection import Answer, ask_server, own_flower, version_line
from deployment.join.flower_log import LastWords
from personalization.errors import UserError

# A server takes a node that vanished for connected until two heartbeats (30 s each) are missing, and admits no second
# one in its place before. So a refusal says something only afterwards, or to a node that it did not take for connected.
STILL_ONLINE_SECONDS = 75.0
# The longest wait between two tries meanwhile: it is known that the time until the next one is short.
READMISSION_SECONDS = 6.0


class Admission:
    """How long a server has been refusing a node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock, self._since = clock, float("nan")
        self._refused = False

    def refused(self) -> float:
        """Note a refusal and return the seconds since the first of this row."""
        if not self._refused:
            self._refused, self._since = True, self._clock()
        return self._clock() - self._since

    def reset(self) -> None:
        """Note that the node was admitted."""
        self._refused = False


def explain_end(words: LastWords, code: int, *, node: NodeFile, online: bool, admission: Admission) -> str:
    """Return a line on why a SuperNode ended with exit `code` on its own.

    online: the server may take this node for connected still. Raises UserError if starting it again cannot help.
    """
    if words.other_version:
        raise UserError(version_line(own_flower(), None))
    if words.refused:
        if online and admission.refused() < STILL_ONLINE_SECONDS:
            return "the server still takes this device for connected, after an end that it was not told of (60 s)"
        raise UserError(
            f"{node.server} does not admit {node.name} ({node.node}): not registered there, or revoked; on the server, "
            "`fedsieve enroll FLEET` shows who belongs to the fleet"
        )
    if words.tls_failed:
        return _look(node) or "the connection broke off while it was made"
    if code == 0:
        return _look(node) or "the server refused this device's signature: it was revoked, or its clock is off"
    return _look(node) or f"the SuperNode ended (exit code {words.exit_code or code}); its log is in the state folder"


def _look(node: NodeFile) -> str | None:
    try:
        found = ask_server(node)
    except UserError as error:
        return str(error)
    return found.clock_line() if isinstance(found, Answer) else None


def has_left(code: int, node: NodeFile) -> bool:
    """Say whether the server knows that a node is gone whose SuperNode ended with exit `code` on its own.

    With 0 it had the time to say goodbye. A server that is not there has not heard it, and one whose clock is too far
    from this device's has refused it with all other messages: both take the node for connected as long as ever.
    """
    if code != 0:
        return False
    try:
        found = ask_server(node)
    except UserError:
        return False
    return isinstance(found, Answer) and found.clock_line() is None
