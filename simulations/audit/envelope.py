"""Flower's envelope around every message: what each field says, and what it may say given the request."""

import re
from collections.abc import Callable

from flwr.proto.message_pb2 import Metadata

from simulations.audit.leaves import FRAMING, Leaf, shown
from simulations.audit.protobuf import Part, Value

_HASH = re.compile(r"[0-9a-f]{64}")
_DAY = 86400.0
# Takes the value, the request's envelope and when the message left, in seconds since 1970.
_Check = Callable[[Value, Metadata, float], bool]


def is_hash(value: Value) -> bool:
    """Return whether a value is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


_FIELDS: dict[str, tuple[str, _Check]] = {
    "run_id": ("number of the run, as in the request", lambda value, asked, sent: value == asked.run_id),
    "message_id": ("hash that names this message", lambda value, asked, sent: is_hash(value)),
    "src_node_id": ("number of this node", lambda value, asked, sent: value == asked.dst_node_id),
    "dst_node_id": ("number of the server", lambda value, asked, sent: value == asked.src_node_id),
    "reply_to_message_id": ("name of the request", lambda value, asked, sent: value == asked.message_id),
    "group_id": ("version of the plan, as in the request", lambda value, asked, sent: value == asked.group_id),
    "ttl": (
        "seconds for which the reply may be kept",
        lambda value, asked, sent: isinstance(value, float) and 0 < value < 30 * _DAY,
    ),
    "message_type": ("train or evaluate, as in the request", lambda value, asked, sent: value == asked.message_type),
    "created_at": (
        "when the reply was made, in seconds since 1970",
        lambda value, asked, sent: isinstance(value, float) and -_DAY < sent - value < 7 * _DAY,
    ),
    "src_task_id": ("number of the task, as in the request", lambda value, asked, sent: value == asked.dst_task_id),
    "dst_task_id": ("number of the server's task", lambda value, asked, sent: value == asked.src_task_id),
}


def envelope_leaf(part: Part, name: str, asked: Metadata, sent: float) -> tuple[Leaf, str]:
    """Return a field of an envelope, and what is wrong with it. name: of the field. sent: when it left, in seconds."""
    if name not in _FIELDS:
        framing = FRAMING if part.value is None and not name else None
        return Leaf(part.path, part.start, part.size, framing, shown(part.value)), ""
    meaning, fits = _FIELDS[name]
    wrong = "" if fits(part.value, asked, sent) else f"{part.path}: not what the request leads to"
    return Leaf(part.path, part.start, part.size, meaning, shown(part.value)), wrong
