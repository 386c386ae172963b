"""Why a client could not do what it was asked to: the only thing that it says about a failure."""

from enum import IntEnum


class ClientFailure(IntEnum):
    """Codes of error replies, above those that Flower uses itself. A code carries no text: text could carry data."""

    BACKBONE_MISSING = 101
    """The cached backbone is not what the server believes; it should send everything."""
    REQUEST_INVALID = 102
    """The plan, the manifest or a tensor does not fit or does not match its hash."""
    DATA_UNUSABLE = 103
    """No private data, too little of it, or data that do not fit the model."""
    STATE_UNWRITABLE = 104
    """The client's own directory could not be read or written."""
    EGRESS_REFUSED = 105
    """The reply held something that may not leave; the guard stopped it."""
    FAILED = 106
    """Anything else. What happened stands in the client's own log."""
    PLAN_UNTRUSTED = 107
    """The plan is not signed by the key, the fleet or for the model that this device was enrolled with."""
    PLAN_OUTDATED = 108
    """The plan is older than one that this device has seen, or another one of the same version."""
    PEERS_UNKNOWN = 109
    """A secure sum with keys that this device does not have (any more); it has to be asked for its key again."""
    SUM_REFUSED = 110
    """An answer could tell more than the sum, or this device was enrolled without a certificate for secure sums."""
    OPEN_REFUSED = 111
    """The server asked for a vector in the open, and this device gives its vector to secure sums alone."""
    BUDGET_SPENT = 112
    """The answer would cost more privacy than this device allows, or comes without any noise."""


class ClientError(Exception):
    """Ends a client's work on a message; only `code` leaves the device."""

    def __init__(self, code: ClientFailure, detail: str) -> None:
        """Take the code for the server and a detail for the client's own log."""
        super().__init__(detail)
        self.code = code


def failure_name(code: int) -> str:
    """Return the name of an error code; codes that are not ours (node lost, application crashed) keep their number."""
    try:
        return ClientFailure(code).name.lower()
    except ValueError:
        return f"flower_{code}"
