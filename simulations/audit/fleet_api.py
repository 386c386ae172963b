"""The bodies of a device's requests: Flower's Fleet API, of which a device uses eight calls."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from google.protobuf.message import DecodeError

from simulations.audit.asked import Asked
from simulations.audit.envelope import envelope_leaf, is_hash
from simulations.audit.http import Request
from simulations.audit.leaves import FRAMING, Decoded, Leaf, shown
from simulations.audit.objects import object_name, read_object
from simulations.audit.protobuf import Part, Value, WireError, walk
from simulations.audit.reply import error_leaf

_CALLS: dict[str, tuple[str, Any]] = {
    "activate-node": ("sign on", fleet_pb2.ActivateNodeRequest),
    "deactivate-node": ("sign off", fleet_pb2.DeactivateNodeRequest),
    "send-node-heartbeat": ("sign of life", heartbeat_pb2.SendNodeHeartbeatRequest),
    "pull-messages": ("ask for messages", fleet_pb2.PullMessagesRequest),
    "push-messages": ("announce a reply", fleet_pb2.PushMessagesRequest),
    "get-run": ("ask about a run", run_pb2.GetRunRequest),
    "get-fab": ("ask for the program", fab_pb2.GetFabRequest),
    "push-object": ("reply", message_pb2.PushObjectRequest),
    "pull-object": ("ask for a part of a message", message_pb2.PullObjectRequest),
    "confirm-message-received": ("confirm a message", message_pb2.ConfirmMessageReceivedRequest),
}
_LARGEST_RUNTIME = 30 * 86400.0


@dataclass
class Known:
    """What is known when a request is read. asked: what the server sent, by name. sessions: that it opened.

    node: number of this node, once it was told. announced: objects of replies, with the request that each answers.
    """

    asked: dict[str, Asked] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    node: int | None = None
    announced: dict[str, Asked] = field(default_factory=dict)


def _node(value: Value, known: Known, request: Request) -> bool:
    known.node = value if known.node is None and isinstance(value, int) else known.node
    return value == known.node


def _number(value: Value, known: Known, request: Request) -> bool:
    return any(asked.metadata.run_id == value for asked in known.asked.values())


def _key(value: Value, known: Known, request: Request) -> bool:
    from base64 import b64encode

    return isinstance(value, bytes) and b64encode(value).decode() == request.headers.get("flwr-public-key")


_Check = Callable[[Value, Known, Request], bool]
# Fields by the last parts of their path.
_FIELDS: tuple[tuple[re.Pattern[str], str, _Check], ...] = (
    (re.compile(r"(node\.)?node_id"), "number of this node", _node),
    (re.compile(r"public_key"), "the node's public key, from enrolment", _key),
    (
        re.compile(r"heartbeat_interval"),
        "seconds between signs of life",
        lambda value, known, request: value == HEARTBEAT_DEFAULT_INTERVAL,
    ),
    (re.compile(r"run_id"), "number of the run", _number),
    (re.compile(r"hash_str"), "hash of the program of the run", lambda value, known, request: is_hash(value)),
    (
        re.compile(r"message_object_trees\.(children\.)*object_id"),
        "hash that names a part of the reply",
        lambda value, known, request: is_hash(value),
    ),
    (re.compile(r"object_id|message_object_id"), "hash that names it", lambda value, known, request: is_hash(value)),
    (
        re.compile(r"clientapp_runtime_list\[\]"),
        "seconds that the device worked on it",
        lambda value, known, request: isinstance(value, float) and 0 <= value < _LARGEST_RUNTIME,
    ),
    (
        re.compile(r"session_id"),
        "number of the delivery, as the server gave it",
        lambda value, known, request: value in known.sessions,
    ),
)


def read_body(request: Request, known: Known, decoded: Decoded) -> None:
    """Add the fields of a request's body to `decoded`, whose kind becomes what the request is for."""
    call = request.path.rpartition("/")[2]
    if request.method == "GET" and request.path == "/v1/fleet" and request.body == len(request.raw):
        decoded.kind = "look whether the server is there"
        return
    if request.cut_off:
        _read_cut_off(request, decoded)
        return
    if call not in _CALLS:
        decoded.problems.append(f"{request.method} {request.path}: not a call of a device")
        return
    decoded.kind, message = _CALLS[call]
    try:
        body = message.FromString(request.raw[request.body :])
        parts = list(walk(request.raw, message.DESCRIPTOR, start=request.body))
    except (DecodeError, WireError) as error:
        decoded.problems.append(f"body: {error}")
        return
    decoded.problems += [part.problem for part in parts if part.problem]
    if isinstance(body, PushMessagesRequest):
        _announce(body, known, decoded)
    for part in parts:
        _read_part(part, body, known, request, decoded)


def _read_cut_off(request: Request, decoded: Decoded) -> None:
    """A request that broke off is sent again as a whole; what got out of it is searched, and named by what it was."""
    decoded.kind = "request that broke off"
    size = len(request.raw) - request.body
    if size:
        decoded.leaves.append(Leaf("cut-off body", request.body, size, f"beginning of the body of {request.path}"))


def _read_part(part: Part, body: Any, known: Known, request: Request, decoded: Decoded) -> None:
    if part.path.startswith("messages_list."):
        _read_envelope_part(part, body, known, request, decoded)
    elif part.value is None:
        decoded.leaves.append(Leaf(part.path, part.start, part.size, FRAMING))
    elif part.path == "object_content" and isinstance(body, PushObjectRequest):
        _read_content(part, body, known, request, decoded)
    else:
        meaning, wrong = None, ""
        for pattern, known_meaning, fits in _FIELDS:
            if pattern.fullmatch(part.path):
                meaning, wrong = (
                    known_meaning,
                    "" if fits(part.value, known, request) else f"{part.path}: {part.value!r}",
                )
                break
        decoded.leaves.append(Leaf(part.path, part.start, part.size, meaning, shown(part.value)))
        decoded.problems += [f"{wrong} is not what it has to be"] if wrong else []


def _read_envelope_part(part: Part, body: Any, known: Known, request: Request, decoded: Decoded) -> None:
    top, _, name = part.path.removeprefix("messages_list.").partition(".")
    asked = known.asked.get(body.messages_list[0].metadata.reply_to_message_id)
    leaf, wrong = Leaf(part.path, part.start, part.size, None, shown(part.value)), ""
    if top == "error":
        leaf, wrong = error_leaf(part, name)
    elif asked is not None and top == "metadata":
        leaf, wrong = envelope_leaf(part, name, asked.metadata, request.seconds)
    elif top == "content" and part.value is None and not body.messages_list[0].content.items:
        leaf = Leaf(part.path, part.start, part.size, "the content comes on its own")
    decoded.leaves.append(leaf)
    decoded.problems += [wrong] if wrong else []


def _announce(body: PushMessagesRequest, known: Known, decoded: Decoded) -> None:
    if len(body.messages_list) != 1 or len(body.message_object_trees) != 1 or len(body.clientapp_runtime_list) != 1:
        decoded.problems.append("not one reply, with one tree and one time")
        return
    metadata, tree = body.messages_list[0].metadata, body.message_object_trees[0]
    asked = known.asked.get(metadata.reply_to_message_id)
    if asked is None:
        decoded.problems.append("a reply to a message that the recording does not hold")
        return
    if tree.object_id != metadata.message_id:
        decoded.problems.append("a reply under another name than its tree")
    known.announced.update(dict.fromkeys(_names(tree), asked))


def _names(tree: ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _names(child)


def _read_content(part: Part, body: PushObjectRequest, known: Known, request: Request, decoded: Decoded) -> None:
    content = body.object_content
    asked = known.announced.get(body.object_id)
    decoded.leaves.append(Leaf(part.path, part.start, part.body - part.start, FRAMING))
    if object_name(content) != body.object_id:
        decoded.problems.append("an object under another name than its hash")
    if asked is None:
        decoded.problems.append("an object of no reply that was announced")
        return
    read_object(content, part.body, asked, decoded, request.seconds)
