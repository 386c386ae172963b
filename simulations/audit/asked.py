"""What a device was asked for: without it nobody can tell what its reply may hold."""

from dataclasses import dataclass

from flwr.app import RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as EncodedMessage
from flwr.proto.message_pb2 import Metadata
from google.protobuf.message import DecodeError


@dataclass(frozen=True)
class Asked:
    """A request. metadata: its envelope. content: its records; tensors of a backbone may be left out."""

    metadata: Metadata
    content: RecordDict


def read_asked(raw: bytes) -> Asked | None:
    """Return the request that is encoded in `raw`, None if that is none."""
    try:
        encoded = EncodedMessage.FromString(raw)
        return Asked(encoded.metadata, message_from_proto(encoded).content)
    except (DecodeError, ValueError, KeyError, TypeError, AttributeError):
        return None
