"""What secure sums add to the messages: one record, beside a plan or alone, and what the reply to it has to look like.

Down: a step, the round that it belongs to, and a message of strategies/secure_aggregation. Up: such a message alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from flwr.app import ConfigRecord, RecordDict

from personalization.wire.plan import PlanError
from personalization.wire.statistics import StatisticsError
from strategies.protocol import FLEET, PLAN, SECURE, SERIES, SIGNATURE
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.graph import graph_size
from strategies.secure_aggregation.identity import ADVERT_BYTES
from strategies.secure_aggregation.masks import KEY_BYTES
from strategies.secure_aggregation.messages import (
    PAIR_REPLY,
    PAIR_REQUEST,
    SHARE_REPLY,
    SHARE_REQUEST,
    TAG_BYTES,
    Invitation,
    MaskedInput,
)
from strategies.secure_aggregation.settings import RoundName, SecureAggregationSettings
from strategies.secure_aggregation.shamir import SHARE_BYTES

STEP, ROUND, MESSAGE = "step", "round", "message"
_KEYS = (STEP, FLEET, SERIES, ROUND, MESSAGE)
_SERIES_BITS, _ROUND_BITS = 42, 16


class Step(IntEnum):
    """What a client is asked for."""

    ADVERTISE = 1
    """Its agreement key for this run, signed."""
    MASK = 2
    """Its masked vector; comes with a plan, and an invitation as message."""
    REVEAL = 3
    """Keys of masks shared with those who vanished, or shares of the self masks of those who did not."""
    WITHHOLD = 4
    """Nothing: the client carries the plan out and keeps its vector to itself."""


@dataclass(frozen=True, kw_only=True)
class SecureRequest:
    """series: number of the run, rising through the life of a fleet. round: number of the sum, rising within a run."""

    step: Step
    fleet: str
    series: int
    round: int
    message: bytes = b""

    @property
    def epoch(self) -> int:
        """What agreement keys are made for: the run, as the second in which it was numbered."""
        return self.series // 1000

    def name(self, plan: bytes, entries: int) -> RoundName:
        """Return the name of the sum. plan: digest of the plan that it answers. Raises ValueError."""
        place = (self.series << _ROUND_BITS) + self.round
        return RoundName(fleet=self.fleet, series=place >> 32, version=place % (1 << 32), plan=plan, entries=entries)

    def to_record(self) -> ConfigRecord:
        """Return the record that travels."""
        return ConfigRecord(
            {STEP: int(self.step), FLEET: self.fleet, SERIES: self.series, ROUND: self.round, MESSAGE: self.message}
        )


def read_secure_request(content: RecordDict) -> SecureRequest | None:
    """Return what a request says about a secure sum, None if it says nothing. Raises PlanError."""
    record = content.config_records.get(SECURE)
    if record is None:
        return None
    step, fleet, series, number, message = (record.get(key) for key in _KEYS)
    if set(record) - {SIGNATURE} != {*_KEYS} or not isinstance(fleet, str) or not isinstance(message, bytes):
        raise PlanError("a record about a secure sum with other keys than it has")
    if type(step) is not int or type(series) is not int or type(number) is not int:
        raise PlanError("a record about a secure sum without its numbers")
    if step not in set(Step) or not 0 <= series < 1 << _SERIES_BITS or not 0 <= number < 1 << _ROUND_BITS:
        raise PlanError("a record about a secure sum with a step or a number that there is not")
    if (PLAN in content) != (step in (Step.MASK, Step.WITHHOLD)) or (PLAN not in content and len(content) > 1):
        raise PlanError("a step of a secure sum without its plan, or with what does not belong to it")
    return SecureRequest(step=Step(step), fleet=fleet, series=series, round=number, message=message)


def secure_reply(message: bytes) -> RecordDict:
    """Return the whole content of a reply to a step."""
    return RecordDict({SECURE: ConfigRecord({MESSAGE: message})})


def read_secure_reply(content: RecordDict) -> bytes:
    """Return the message of a reply that holds nothing else. Raises StatisticsError."""
    if set(content) != {SECURE} or set(content.config_records) != {SECURE}:
        raise StatisticsError(
            "a reply to a step of a secure sum must hold one record and nothing else", reason="records"
        )
    record = content.config_records[SECURE]
    message = record.get(MESSAGE)
    if set(record) != {MESSAGE} or type(message) is not bytes:
        raise StatisticsError("a reply to a step of a secure sum must hold one message and nothing else", reason="keys")
    return message


def check_form(
    request: SecureRequest,
    message: bytes,
    *,
    vector_bytes: Callable[[int], int],
    settings: SecureAggregationSettings,
) -> None:
    """Return if a reply has the kind and the length that the request leads to; raise StatisticsError if not.

    What is masked looks like random bytes, so this is all that can be told from outside. vector_bytes: how many bytes
    the masked vector has in a cohort of this size.
    Raises UserError and MessageError for requests that can't be answered.
    """
    if request.step is Step.MASK:
        invitation = Invitation.decode(request.message)
        size = graph_size(invitation.cohort, settings)
        width = vector_bytes(invitation.cohort)
        try:
            MaskedInput.decode(message, shares=size.degree - size.threshold + 1, vector_bytes=width)
        except MessageError as error:
            raise StatisticsError(str(error), reason=error.reason) from error
        return
    if request.step is Step.REVEAL:
        fits = _is_revelation(request.message, message)
    else:
        fits = len(message) == (ADVERT_BYTES if request.step is Step.ADVERTISE else 0)
    if not fits:
        raise StatisticsError("a reply of another kind or length than its request leads to")


def _is_revelation(asked: bytes, told: bytes) -> bool:
    flags = asked[1 + TAG_BYTES :]
    if asked[:1] == bytes([PAIR_REQUEST]):
        kind, size, most = PAIR_REPLY, KEY_BYTES, int.from_bytes(flags, "little").bit_count()
    elif asked[:1] == bytes([SHARE_REQUEST]):
        # Two flags for each peer, and then sealed shares: how many peers there are stands on the device.
        kind, size, most = SHARE_REPLY, SHARE_BYTES, 4 * len(flags)
    else:
        return False
    return told[:1] == bytes([kind]) and (len(told) - 1) % size == 0 and len(told) - 1 <= most * size
