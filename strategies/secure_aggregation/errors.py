"""What can go wrong in a secure sum. No text names a value, a key or a share."""


class SecureAggregationError(ValueError):
    """The protocol can't go on; its subclasses say at which end and why."""


class MessageError(SecureAggregationError):
    """Bytes that are no message of this protocol: a wrong kind, length or number. All decoders raise this alone.

    reason: a short code for it that stays the same from version to version, for counts.
    """

    def __init__(self, text: str, *, reason: str = "form") -> None:
        """Take the text for whoever reads it, and the code for whoever counts."""
        super().__init__(text)
        self.reason = reason


class RefusalError(SecureAggregationError):
    """A client refuses to answer, because the answer could tell more than the sum."""


class PeersUnknownError(SecureAggregationError):
    """A client was given a peer that it does not know (any more): the server has to introduce all peers again."""


class RoundFailedError(SecureAggregationError):
    """The round has no sum, and nothing was revealed: too few clients stayed, or what they sent does not fit."""
