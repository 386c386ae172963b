"""No decoder crashes, raises what it does not document, or takes memory that the input does not account for."""

import time
import tracemalloc

import pytest
from decoders import DEEP, HUGE, all_decoders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SIZES = (b"\xff" * 8, (1 << 60).to_bytes(8, "little"), (1 << 60).to_bytes(8, "big"), b"\xff\xff\xff\x7f")


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoders")
    folder.chmod(0o700)
    return all_decoders(folder)


def call(name, decoder, raw):
    """Decode; fail on an error that is not documented, and on more than a second of work."""
    started = time.process_time()
    try:
        decoder.call(raw)
    except decoder.allowed:
        pass
    except Exception as error:
        raise AssertionError(f"{name} raises {error!r} for {raw[:80]!r}") from error
    assert time.process_time() - started < 5.0, name


@st.composite
def mutations(draw, valid):
    """Bytes cut short, with bits flipped, parts swapped or a huge size put somewhere."""
    raw = bytearray(valid)
    place = draw(st.integers(0, len(raw) - 1))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return bytes(raw[:place])
    if kind == 1:
        raw[place] ^= 1 << draw(st.integers(0, 7))
    elif kind == 2:
        other = draw(st.integers(0, len(raw) - 1))
        low, high = sorted((place, other))
        raw = raw[high:] + raw[low:high] + raw[:low]
    else:
        size = draw(st.sampled_from(SIZES))
        raw[place : place + len(size)] = size
    return bytes(raw)


def test_every_decoder_takes_what_is_valid(decoders):
    partial = {"manifest of a personal model", "device manifest", "node file"}  # their own tests have whole ones
    for name, decoder in decoders.items():
        for raw in decoder.valid if name not in partial else ():
            decoder.call(raw)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_other_bytes_raise_nothing_but_what_is_documented(decoders, data):
    for name, decoder in decoders.items():
        valid = data.draw(st.sampled_from(decoder.valid))
        call(name, decoder, data.draw(mutations(valid)))
    call(name, decoders[name := data.draw(st.sampled_from(sorted(decoders)))], data.draw(st.binary(max_size=200)))


def test_what_is_nested_too_deeply_or_of_no_object_is_refused(decoders):
    for name, decoder in decoders.items():
        for raw in (b"", DEEP, HUGE, b"[]", b"null", b"1", b'{"format":2}', b"\xff\xfe"):
            call(name, decoder, raw)


def test_a_size_that_lies_costs_no_memory(decoders):
    for name, decoder in decoders.items():
        valid = decoder.valid[-1]
        call(name, decoder, valid)  # what is imported or cached on first use is not the input's
        for size in SIZES:
            for place in range(0, min(len(valid), 120), 8):
                raw = valid[:place] + size + valid[place + len(size) :]
                tracemalloc.start()
                call(name, decoder, raw)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < decoder.spare_bytes + decoder.factor * len(raw), (name, place)
