"""No decoder crashes, raises what it does not document, or takes memory that the input does not account for."""

import json
import time
import tracemalloc

import pytest
from decoders import DEEP, HUGE, all_decoders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ODD = (None, -1, 2**70, 1.5, float("nan"), float("inf"), True, "", "x", "1", [], [[1]], {}, {"a": 1})
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


@st.composite
def changed_json(draw, valid):
    """The same JSON with one value in it left out, or with another in its place."""
    record = json.loads(valid)
    places = list(_places(record))
    *way, last = draw(st.sampled_from(places))
    inside = record
    for key in way:
        inside = inside[key]
    if draw(st.booleans()):
        inside[last] = draw(st.sampled_from(ODD))
    else:
        del inside[last]
    return json.dumps(record).encode()


def _is_json(raw):
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False


def _places(record, *way):
    pairs = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in pairs:
        yield *way, key
        yield from _places(value, *way, key)


def test_every_decoder_takes_what_is_valid(decoders):
    refused = {"folder of a comparison"}  # of another version
    for name, decoder in decoders.items():
        for raw in decoder.valid if name not in refused else ():
            decoder.call(raw)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_other_bytes_raise_nothing_but_what_is_documented(decoders, data):
    for name, decoder in decoders.items():
        valid = data.draw(st.sampled_from(decoder.valid))
        call(name, decoder, data.draw(mutations(valid)))
    call(name, decoders[name := data.draw(st.sampled_from(sorted(decoders)))], data.draw(st.binary(max_size=200)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_json_that_says_something_else_raises_nothing_but_what_is_documented(decoders, data):
    readers = {name: decoder for name, decoder in decoders.items() if _is_json(decoder.valid[0])}
    assert len(readers) > 15
    for name, decoder in readers.items():
        call(name, decoder, data.draw(changed_json(decoder.valid[0])))


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
