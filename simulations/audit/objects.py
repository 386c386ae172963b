"""Flower's objects: on a network a message travels as a tree of them, each named by the hash of its bytes.

An object is a head (kind, names of the objects in it, length of its body), a zero byte, and the body.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import Message as EncodedMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import ConfigRecord as EncodedConfigRecord
from google.protobuf.message import DecodeError

from simulations.audit.asked import Asked
from simulations.audit.envelope import envelope_leaf
from simulations.audit.leaves import Decoded, Leaf
from simulations.audit.protobuf import WireError, walk
from simulations.audit.reply import ReplyError, content_leaves, error_leaf, expected_record, read_content

_HEAD = re.compile(rb"(\w+) ((?:[0-9a-f]{64})?(?:,[0-9a-f]{64})*) (\d+)\x00")


def object_name(content: bytes) -> str:
    """Return the name of an object: the SHA-256 of its bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Head:
    """Of an object: its kind, the names of those in it, and where its body begins."""

    kind: str
    children: list[str]
    size: int


def read_head(content: bytes) -> Head | None:
    """Return the head of an object, None if it has none that fits its length."""
    found = _HEAD.match(content)
    if found is None or int(found[3]) != len(content) - found.end() or found[3] != b"%d" % int(found[3]):
        return None
    children = found[2].decode()
    return Head(found[1].decode(), children.split(",") if children else [], found.end())


def build_request(tree: ObjectTree, objects: dict[str, bytes]) -> RecordDict:
    """Return the records of a message that came down, as far as its `objects` are there; tensors are left out."""
    records = RecordDict()
    for child in tree.children:
        body = objects.get(child.object_id, b"")
        head = read_head(body)
        if head is None or head.kind != "RecordDict":
            continue
        for name, identifier in json.loads(body[head.size :]).items():
            content = objects.get(identifier, b"")
            if content.startswith(b"ConfigRecord "):
                records[name] = ConfigRecord.inflate(content)
    return records


def read_object(content: bytes, place: int, asked: Asked, decoded: Decoded, sent: float) -> None:
    """Add the fields of an object that leaves to `decoded`. place: where it stands in the message around it."""
    head = read_head(content)
    reader = None if head is None else _READERS.get(head.kind)
    if head is None or reader is None:
        what = "an object without a head" if head is None else f"an object of kind {head.kind}, which may not leave"
        decoded.problems.append(what)
        return
    decoded.kind = f"reply: {_KINDS[head.kind]}"
    decoded.leaves.append(Leaf("object.head", place, head.size, "kind, parts and length of the object"))
    before = len(decoded.leaves)
    try:
        reader(content, head, asked, decoded, sent)
    except (DecodeError, WireError, ReplyError, ValueError, TypeError, KeyError, AttributeError) as error:
        decoded.problems.append(f"object: {error}")
    decoded.leaves[before:] = [
        Leaf(f"object.{leaf.name}", leaf.start + place, leaf.size, leaf.meaning, leaf.value)
        for leaf in decoded.leaves[before:]
    ]


def _read_record(content: bytes, head: Head, asked: Asked, decoded: Decoded, sent: float) -> None:
    parts = list(walk(content, EncodedConfigRecord.DESCRIPTOR, start=head.size))
    decoded.problems += [part.problem for part in parts if part.problem]
    record = RecordDict({expected_record(asked.content): ConfigRecord.inflate(content)})
    kind, pieces = read_content(record, asked.content)
    decoded.kind = f"reply: {kind}"
    decoded.leaves += content_leaves(parts, pieces, prefix="", record="")


def _read_records(content: bytes, head: Head, asked: Asked, decoded: Decoded, sent: float) -> None:
    expected = expected_record(asked.content)
    if content[head.size :] != json.dumps({expected: head.children[0] if head.children else ""}).encode():
        raise ReplyError(f"a reply of other records than {expected}")
    size = len(content) - head.size
    decoded.leaves.append(Leaf("records", head.size, size, "name of the record, and of the object that holds it"))


def _read_message(content: bytes, head: Head, asked: Asked, decoded: Decoded, sent: float) -> None:
    message = EncodedMessage.FromString(content[head.size :])
    if message.HasField("content") or message.HasField("error") == bool(head.children) or len(head.children) > 1:
        raise ReplyError("a message with neither content nor error, or with both")
    read_envelope(content, head.size, len(content), asked, decoded, sent)


def read_envelope(raw: bytes, start: int, end: int, asked: Asked, decoded: Decoded, sent: float) -> None:
    """Add the fields of a message without content to `decoded`."""
    for part in walk(raw, EncodedMessage.DESCRIPTOR, start=start, end=end):
        top, _, name = part.path.partition(".")
        if top == "error":
            leaf, wrong = error_leaf(part, name)
        elif top == "metadata":
            leaf, wrong = envelope_leaf(part, name, asked.metadata, sent)
        else:
            leaf, wrong = Leaf(part.path, part.start, part.size, None), ""
        decoded.leaves.append(leaf)
        decoded.problems += [problem for problem in (part.problem, wrong) if problem]


_KINDS = {"ConfigRecord": "record", "RecordDict": "list of records", "Message": "envelope"}
_READERS = {"ConfigRecord": _read_record, "RecordDict": _read_records, "Message": _read_message}
