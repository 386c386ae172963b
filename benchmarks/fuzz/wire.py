"""The decoders of the wire: what valid bytes look like, what is called with others, and what it may raise.

tests/decoding has these and all others in one table, and calls them with mutations that hypothesis draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import message_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as EncodedMessage
from flwr.proto.message_pb2 import Metadata

from personalization.model_files.pieces import BackboneManifest, PieceError, piece_hash
from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan, PlanError
from personalization.wire.statistics import StatisticsError, StatisticsLayout, decode, encode
from strategies.protocol import (
    MANIFEST,
    PIECES,
    PLAN,
    SECURE,
    pieces_record,
    plan_record,
    read_manifest,
    read_pieces,
    read_plan,
    read_reply,
    reply_content,
)
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.identity import ADVERT_BYTES, advert_fingerprint
from strategies.secure_aggregation.keyring import Keyring, KnownPeer
from strategies.secure_aggregation.messages import (
    Invitation,
    MaskedInput,
    PairReply,
    PairRequest,
    ShareReply,
    ShareRequest,
)
from strategies.secure_aggregation.participation import Participation
from strategies.secure_protocol import SecureRequest, Step, read_secure_reply, read_secure_request, secure_reply
from strategies.signatures import plan_digest, signed_bytes

LAYOUT = StatisticsLayout(layers=2, levels=2, groups=5)
VECTOR = np.linspace(0.0, 1.0, LAYOUT.size)
_FLAGS = np.array([1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
_FIXED = FixedPoint(16, 100)


@dataclass(frozen=True, repr=False)
class Decoder:
    """valid: some bytes that `call` takes. allowed: what it may raise for others.

    spare_bytes: how much memory it may take beside `factor` times the input, as tracemalloc sees it.
    """

    valid: tuple[bytes, ...]
    call: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    spare_bytes: int = 200_000
    factor: int = 60


class NotFlowersError(Exception):
    """What Flower's own decoding does not take: its business, and never seen by ours."""


def wire_decoders() -> dict[str, Decoder]:
    """Return all of them by name."""
    return {**_messages(), **_secure_messages()}


def grouped_decoders() -> dict[str, Decoder]:
    """Return the same as few: the first byte of an input says which of the secure messages the rest is."""
    kinds = tuple(_secure_messages().values())
    valid = tuple(bytes([number]) + kind.valid[0] for number, kind in enumerate(kinds))
    secure = Decoder(valid, lambda raw: kinds[raw[0] % len(kinds)].call(raw[1:]) if raw else None, (MessageError,))
    return {**_messages(), "secure messages": secure}


def request_contents() -> tuple[RecordDict, ...]:
    """Return requests of every kind."""
    prior = Prior(np.array([0.0, 0.1, 0.2, 3.0]), np.array([0.0, 1.0, 2.0, 0.5]))
    plan = Plan(version=4, prior=prior, dropped=np.array([0, 0, 1, 0, 0], dtype=bool), probes=2, budget=0.5)
    pieces = {"0": torch.arange(4.0), "1": torch.ones(3, dtype=torch.float16), "fold.0": torch.zeros(2)}
    hashes = tuple(piece_hash(piece) for piece in pieces.values())[:2]
    manifest = BackboneManifest('{"a":1}', '{"labels":["x"]}', ("name",), ((np.array([1, 0]),),), hashes)
    signed = {**plan_record(plan, LAYOUT, manifest.root), "fleet": "f", "series": 7, "signature": bytes(64)}
    invitation = Invitation(9, 5, np.array([1, 4, 300], np.uint32), {4: b"a" * ADVERT_BYTES}).encode()
    masked = SecureRequest(step=Step.MASK, fleet="f", series=7, round=1, message=invitation).to_record()
    alone = SecureRequest(
        step=Step.REVEAL, fleet="f", series=7, round=1, message=PairRequest(b"t" * 8, _FLAGS).encode()
    )
    return (
        RecordDict({PLAN: plan_record(plan, LAYOUT, bytes(32))}),
        RecordDict(
            {
                PLAN: ConfigRecord(signed),
                MANIFEST: ConfigRecord(manifest.to_record()),
                PIECES: pieces_record(pieces),
            }
        ),
        RecordDict({PLAN: ConfigRecord(signed), SECURE: masked}),
        RecordDict({SECURE: alone.to_record()}),
    )


def encode_content(content: RecordDict) -> bytes:
    """Return a message with this content as Flower encodes it."""
    metadata = Metadata(run_id=1, message_type="train")
    encoded: bytes = EncodedMessage(metadata=metadata, content=recorddict_to_proto(content)).SerializeToString()
    return encoded


def decode_content(raw: bytes) -> RecordDict:
    """Return the content of a message as Flower decodes it. Raises NotFlowersError."""
    try:
        return message_from_proto(EncodedMessage.FromString(raw)).content
    except Exception as error:
        raise NotFlowersError(str(error)) from error


def read_request(content: RecordDict) -> None:
    """Read a request as a device does, all of it, whatever a part of it raises. Raises the last of these."""
    last: ValueError | None = None
    plan = (plan_digest, read_plan, read_manifest, _read_and_hash) if SECURE not in content or len(content) > 1 else ()
    for read in (signed_bytes, read_secure_request, *plan):
        try:
            read(content)
        except (PlanError, PieceError) as error:
            last = error
    if last is not None:
        raise last


def _read_and_hash(content: RecordDict) -> None:
    for piece in read_pieces(content).values():
        piece_hash(piece)


def _read_replies(content: RecordDict) -> None:
    try:
        read_secure_reply(content)
    except StatisticsError:
        read_reply(content, LAYOUT, 4)


def _messages() -> dict[str, Decoder]:
    """What Flower decodes, and then a device or the server reads."""
    requests = tuple(map(encode_content, request_contents()))
    replies = tuple(map(encode_content, (reply_content(VECTOR, 4), secure_reply(b"m" * 40))))
    # What Flower's own records take of memory is a multiple of the message.
    return {
        "request": Decoder(
            requests,
            lambda raw: read_request(decode_content(raw)),
            (NotFlowersError, PlanError, PieceError),
            spare_bytes=1_000_000,
        ),
        "reply": Decoder(
            replies,
            lambda raw: _read_replies(decode_content(raw)),
            (NotFlowersError, StatisticsError),
            spare_bytes=1_000_000,
        ),
        "statistics vector": Decoder((encode(VECTOR),), lambda raw: decode(raw, LAYOUT), (StatisticsError,)),
    }


def _secure_messages() -> dict[str, Decoder]:
    peer = KnownPeer(b"f" * 16, b"k" * 32)
    keyring = Keyring("fleet", 3, b"p" * 32, b"a" * ADVERT_BYTES, {4: peer, 9: peer}, (2, 5))
    given = {2: (b"n" * 8, b"s" * 32), 10: (b"m" * 8, b"t" * 32)}
    words = _FIXED.to_words(VECTOR)
    examples: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
        "invitation": (
            Invitation(9, 5, np.array([1, 4, 300], np.uint32), {4: b"a" * ADVERT_BYTES}).encode(),
            Invitation.decode,
        ),
        "masked vector": (
            MaskedInput(b"c" * 16, b"n" * 8, [b"s" * 32, b"t" * 32], b"vec").encode(),
            lambda raw: MaskedInput.decode(raw, shares=2, vector_bytes=3),
        ),
        "fixed point": (_FIXED.pack(words), lambda raw: _FIXED.unpack(raw, LAYOUT.size)),
        "pair request": (PairRequest(b"t" * 8, _FLAGS).encode(), lambda raw: PairRequest.decode(raw, peers=11)),
        "pair reply": (PairReply([b"k" * 32, b"l" * 32]).encode(), lambda raw: PairReply.decode(raw, keys=2)),
        "share request": (
            ShareRequest(b"t" * 8, _FLAGS, given).encode(),
            lambda raw: ShareRequest.decode(raw, peers=11),
        ),
        "share reply": (ShareReply([b"1" * 16, b"2" * 16]).encode(), lambda raw: ShareReply.decode(raw, shares=2)),
        "advertisement": (b"a" * ADVERT_BYTES, advert_fingerprint),
        "keyring": (keyring.to_bytes(), Keyring.from_bytes),
        "participation": (
            Participation(b"s" * 32, 3, np.array([2, 5, 9], np.uint32), _FLAGS[:3]).to_bytes(),
            Participation.from_bytes,
        ),
    }
    return {name: Decoder((valid,), call, (MessageError,)) for name, (valid, call) in examples.items()}
