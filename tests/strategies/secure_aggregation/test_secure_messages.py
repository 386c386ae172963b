import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.identity import ADVERT_BYTES
from strategies.secure_aggregation.messages import (
    Invitation,
    MaskedInput,
    PairReply,
    PairRequest,
    ShareReply,
    ShareRequest,
)
from strategies.secure_aggregation.participation import Participation

DECODERS: dict[str, Callable[[bytes], object]] = {
    "invitation": Invitation.decode,
    "masked": lambda raw: MaskedInput.decode(raw, shares=2, vector_bytes=3),
    "pair request": lambda raw: PairRequest.decode(raw, peers=11),
    "pair reply": lambda raw: PairReply.decode(raw, keys=2),
    "share request": lambda raw: ShareRequest.decode(raw, peers=11),
    "share reply": lambda raw: ShareReply.decode(raw, shares=3),
    "participation": Participation.from_bytes,
}
FLAGS = np.array([1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
EXAMPLES: dict[str, bytes] = {
    "invitation": Invitation(9, 5, np.array([1, 4, 70_000], np.uint32), {4: b"a" * ADVERT_BYTES}).encode(),
    "masked": MaskedInput(b"c" * 16, b"n" * 8, [b"s" * 32, b"t" * 32], b"vec").encode(),
    "pair request": PairRequest(b"t" * 8, FLAGS).encode(),
    "pair reply": PairReply([b"k" * 32, b"l" * 32]).encode(),
    "share request": ShareRequest(b"t" * 8, FLAGS, {2: (b"n" * 8, b"s" * 32), 10: (b"m" * 8, b"t" * 32)}).encode(),
    "share reply": ShareReply([b"1" * 16, b"2" * 16, b"3" * 16]).encode(),
    "participation": Participation(b"s" * 32, 3, np.array([2, 5, 9], np.uint32), FLAGS[:3]).to_bytes(),
}


def encoded(message: object) -> bytes:
    return message.to_bytes() if isinstance(message, Participation) else message.encode()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("kind", DECODERS)
def test_every_message_survives_its_bytes(kind: str) -> None:
    assert encoded(DECODERS[kind](EXAMPLES[kind])) == EXAMPLES[kind]


@pytest.mark.parametrize("kind", DECODERS)
@given(raw=st.binary(max_size=700))
def test_other_bytes_raise_one_error(kind: str, raw: bytes) -> None:
    for candidate in (raw, EXAMPLES[kind][:1] + raw):
        try:
            again = encoded(DECODERS[kind](candidate))
        except MessageError:
            continue
        assert again == candidate, "what is accepted has one form"


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.data())
def test_damaged_messages_raise_one_error_or_mean_exactly_what_they_say(kind: str, data: st.DataObject) -> None:
    example = EXAMPLES[kind]
    cut = data.draw(st.integers(0, len(example)))
    place, value = data.draw(st.integers(0, len(example) - 1)), data.draw(st.integers(0, 255))
    changed = example[:place] + bytes([value]) + example[place + 1 :]
    for candidate in (example[:cut], changed, example + bytes(cut + 1)):
        try:
            again = encoded(DECODERS[kind](candidate))
        except MessageError:
            continue
        assert again == candidate


@pytest.mark.parametrize("kind", ["invitation", "participation"])
def test_a_length_that_lies_costs_no_memory(kind: str) -> None:
    example = bytearray(EXAMPLES[kind])
    counts = slice(9, 13) if kind == "invitation" else slice(37, 41)
    example[counts] = b"\xff" * 4
    tracemalloc.start()
    with pytest.raises(MessageError):
        DECODERS[kind](bytes(example))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
