"""A simulated client's messages, as its recording holds them: each is one whole encoded message of Flower."""

from collections import Counter
from collections.abc import Iterable, Iterator

from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as EncodedMessage
from google.protobuf.message import DecodeError

from client.recording import Entry, Kind
from personalization.wire.codes import failure_name
from simulations.audit.asked import Asked, read_asked
from simulations.audit.envelope import envelope_leaf
from simulations.audit.leaves import Decoded, Leaf, Piece
from simulations.audit.protobuf import Part, WireError, walk
from simulations.audit.reply import ReplyError, content_leaves, error_leaf, read_content

UNREADABLE = "unreadable"


def read_messages(entries: Iterable[Entry]) -> Iterator[Decoded]:
    """Yield what each message that left amounts to. A message whose request is not recorded has a problem."""
    asked: dict[str, Asked] = {}
    sent: Counter[int] = Counter()
    for entry in entries:
        if entry.kind is Kind.DOWN:
            request = read_asked(entry.down()[1])
            if request is not None:
                asked[request.metadata.message_id] = request
        elif entry.kind is Kind.UP:
            sent[entry.channel] += 1
            decoded = Decoded(f"client {entry.channel}", sent[entry.channel], UNREADABLE, entry.data)
            yield read_message(entry, asked, decoded).finish()


def read_message(entry: Entry, asked: dict[str, Asked], decoded: Decoded) -> Decoded:
    """Fill in `decoded` for a message that left. asked: the requests so far, by their name."""
    try:
        encoded = EncodedMessage.FromString(entry.data)
        parts = list(walk(entry.data, EncodedMessage.DESCRIPTOR))
    except (DecodeError, WireError) as error:
        decoded.problems.append(f"not a message: {error}")
        return decoded
    decoded.problems += [part.problem for part in parts if part.problem]
    request = asked.get(encoded.metadata.reply_to_message_id)
    if request is None:
        decoded.problems.append("a reply to a request that the recording does not hold")
        return decoded
    pieces = _read_kind(encoded, request, decoded)
    content = [part for part in parts if part.path.startswith("content.")]
    decoded.leaves += content_leaves(content, pieces, prefix="content.", record="items.config_record.")
    for part in parts:
        if not part.path.startswith("content."):
            leaf, wrong = _leaf(part, request, entry.seconds)
            decoded.leaves.append(leaf)
            decoded.problems += [wrong] if wrong else []
    return decoded


def _read_kind(encoded: EncodedMessage, request: Asked, decoded: Decoded) -> list[Piece]:
    """Note what kind of message it is; return the parts of the bytes in it."""
    if encoded.HasField("error"):
        decoded.kind = f"error {encoded.error.code}: {failure_name(encoded.error.code)}"
        if encoded.HasField("content"):
            decoded.problems.append("an error with content")
        return []
    try:
        decoded.kind, pieces = read_content(message_from_proto(encoded).content, request.content)
    except (ReplyError, ValueError, TypeError, KeyError, AttributeError) as error:
        decoded.problems.append(str(error))
        return []
    return pieces


def _leaf(part: Part, request: Asked, sent: float) -> tuple[Leaf, str]:
    top, _, name = part.path.partition(".")
    if top == "error":
        return error_leaf(part, name)
    if top == "content":
        return envelope_leaf(part, "", request.metadata, sent)
    return envelope_leaf(part, name, request.metadata, sent)
