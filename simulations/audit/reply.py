"""What a reply holds: exactly what its request leads to, or a bare code."""

from collections.abc import Iterable

from flwr.app import RecordDict
from flwr.common.constant import ErrorCode

from personalization.errors import UserError
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import PlanError
from personalization.wire.statistics import StatisticsError
from simulations.audit.leaves import FRAMING, Leaf, Piece, cut, shown
from simulations.audit.protobuf import Part
from simulations.audit.secure import secure_pieces
from simulations.audit.statistics import released_pieces, vector_pieces
from strategies.private_protocol import check_sum_part, read_answer
from strategies.protocol import PLAN, SECURE, STATISTICS, read_plan
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.settings import SecureAggregationSettings
from strategies.secure_protocol import read_secure_reply, read_secure_request

_OWN_ERRORS = frozenset(int(code) for code in ClientFailure)
_FLOWER_ERRORS = frozenset(value for name, value in vars(ErrorCode).items() if name.isupper())


class ReplyError(ValueError):
    """A reply that holds something else than what its request leads to."""


def expected_record(request: RecordDict) -> str:
    """Return the name of the one record of a reply to `request`."""
    return SECURE if SECURE in request.config_records else STATISTICS


def read_content(content: RecordDict, request: RecordDict) -> tuple[str, list[Piece]]:
    """Return what kind of reply it is, and the parts of the bytes in it. Raises ReplyError."""
    settings = SecureAggregationSettings()
    try:
        asked = read_secure_request(request)
        if asked is None:
            plan, layout, _ = read_plan(request)
            vector = read_answer(content, layout, plan)
            if plan.privacy is not None:
                return "deviations from the prior", released_pieces(vector)
            return "statistics vector", vector_pieces(vector, layout)
        raw = read_secure_reply(content)
        check_sum_part(asked, raw, *(read_plan(request)[:2] if PLAN in request else ()))
        return secure_pieces(asked, raw, settings)
    except (StatisticsError, PlanError, MessageError, UserError) as error:
        raise ReplyError(f"content: {error}") from error


def content_leaves(parts: Iterable[Part], pieces: list[Piece], *, prefix: str, record: str) -> list[Leaf]:
    """Return the fields of the encoded records of a reply that `read_content` let pass.

    parts: of the encoding. prefix: what stands before the names of fields. record: what stands before those of the
    record's own, in which it is.
    """
    leaves = []
    for part in parts:
        name = part.path.removeprefix(prefix)
        if part.value is None:
            leaves.append(Leaf(part.path, part.start, part.size, FRAMING))
        elif name in ("items.key", "items.config_record.items.key"):
            leaves.append(
                Leaf(part.path, part.start, part.size, "name of a record or of a value in it", shown(part.value))
            )
        elif name.endswith("items.value.sint64"):
            meaning = "version of the plan that this answers"
            leaves.append(Leaf(f"{prefix}version", part.start, part.size, meaning, shown(part.value)))
        elif name == f"{record}items.value.bytes":
            leaves.append(Leaf(part.path, part.start, part.body - part.start, FRAMING))
            leaves += cut(part.body, pieces, prefix=prefix)
        else:
            leaves.append(Leaf(part.path, part.start, part.size, None, shown(part.value)))
    return leaves


def error_leaf(part: Part, name: str) -> tuple[Leaf, str]:
    """Return the field of an error, and what is wrong with it. name: of the field in the error."""
    if name == "code":
        known = part.value in _OWN_ERRORS | _FLOWER_ERRORS
        leaf = Leaf(part.path, part.start, part.size, "why the device could not do it, as a code", shown(part.value))
        return leaf, "" if known else f"{part.path}: {part.value!r} is no code"
    if part.value is None:
        return Leaf(part.path, part.start, part.size, FRAMING), ""
    leaf = Leaf(part.path, part.start, part.size, "text of an error, which has to be empty", shown(part.value))
    return leaf, f"{part.path}: an error with a text of {part.size} bytes"
