"""Take a protobuf message apart down to its fields, and see whether it is encoded as Flower encodes it.

A decoder is lenient: it skips fields that it doesn't know, and takes one value in many encodings. What is skipped or
varied can carry something, so here every byte of the wire format counts.
Source: https://protobuf.dev/programming-guides/encoding/
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_SIGNED = frozenset({FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64})
_DOUBLE = frozenset({FieldDescriptor.TYPE_DOUBLE})
_TEXT = frozenset({FieldDescriptor.TYPE_STRING})
_LENGTHY = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE})

Value = int | float | str | bytes | None


class WireError(ValueError):
    """Bytes that are no message of the expected kind."""


@dataclass(frozen=True)
class Part:
    """A field on the wire. path: names from the message inward. start, size: with its number and length.

    body: place of the bytes themselves. value: None for the number and length of a message inside. problem: what is
    wrong about it.
    """

    path: str
    start: int
    size: int
    body: int
    value: Value
    problem: str = ""


def walk(
    raw: bytes, descriptor: Descriptor, *, start: int = 0, end: int | None = None, path: str = ""
) -> Iterator[Part]:
    """Yield the fields of the message in `raw` from `start` to `end`, in order; together they hold every byte.

    Raises WireError where the bytes are no message.
    """
    end = len(raw) if end is None else end
    place, last = start, 0
    while place < end:
        tag, at = varint(raw, place, end)
        number, kind = tag >> 3, tag & 7
        field = descriptor.fields_by_number.get(number)
        name = f"{path}{field.name}" if field is not None else f"{path}field {number}"
        if field is None:
            stop = _skip(raw, kind, at, end)
            yield Part(name, place, stop - place, at, raw[at:stop], f"{name}: a field that there is not")
        else:
            problem = _order(name, number, last, repeated=field.is_repeated)
            stop = _skip(raw, kind, at, end)
            yield from _known(raw, field, kind, name, (place, at, stop), problem)
        place, last = stop, number


def varint(raw: bytes, place: int, end: int) -> tuple[int, int]:
    """Return the number at `place` and where it ends. Raises WireError if it is not in its shortest form."""
    value = shift = 0
    for at in range(place, min(end, place + 10)):
        value |= (raw[at] & 0x7F) << shift
        shift += 7
        if not raw[at] & 0x80:
            if raw[at] == 0 and at > place:
                raise WireError(f"a number at byte {place} that is longer than it has to be")
            if value >> 64:
                raise WireError(f"a number at byte {place} of more than 64 bits")
            return value, at + 1
    raise WireError(f"a number at byte {place} that does not end")


def _known(
    raw: bytes, field: FieldDescriptor, kind: int, name: str, span: tuple[int, int, int], problem: str
) -> Iterator[Part]:
    place, at, stop = span
    if kind != _BYTES:
        value = _number(raw, field, kind, at, stop)
        empty = value == 0 and not field.has_presence and not field.is_repeated
        problem = problem or (f"{name}: a list that is not packed" if field.is_repeated else "")
        yield Part(
            name, place, stop - place, at, value, problem or (f"{name}: a zero that is left out" if empty else "")
        )
        return
    size, body = varint(raw, at, stop)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        yield Part(name, place, body - place, body, None, problem)
        yield from walk(raw, field.message_type, start=body, end=stop, path=f"{name}.")
        return
    if field.type not in _LENGTHY:
        yield from _packed(raw, field, name, (place, body, stop), problem)
        return
    if not size and not field.has_presence and not field.is_repeated:
        problem = problem or f"{name}: an empty value that is left out"
    if field.type not in _TEXT:
        yield Part(name, place, stop - place, body, raw[body:stop], problem)
        return
    try:
        yield Part(name, place, stop - place, body, raw[body:stop].decode(), problem)
    except UnicodeDecodeError:
        yield Part(name, place, stop - place, body, raw[body:stop], f"{name}: not a text")


def _packed(raw: bytes, field: FieldDescriptor, name: str, span: tuple[int, int, int], problem: str) -> Iterator[Part]:
    place, body, stop = span
    wrong = "" if field.is_repeated and body < stop else f"{name}: not a list of numbers, or an empty one"
    yield Part(name, place, body - place, body, None, problem or wrong)
    at = body
    kind = _EIGHT if field.type in _DOUBLE else _VARINT
    while at < stop:
        end = _skip(raw, kind, at, stop)
        yield Part(f"{name}[]", at, end - at, at, _number(raw, field, kind, at, end))
        at = end


def _number(raw: bytes, field: FieldDescriptor, kind: int, at: int, stop: int) -> Value:
    if kind == _EIGHT and field.type in _DOUBLE:
        return float(struct.unpack_from("<d", raw, at)[0])
    if kind != _VARINT or field.type in _LENGTHY | _DOUBLE:
        raise WireError(f"{field.full_name} in the form of another field")
    value, _ = varint(raw, at, stop)
    return (value >> 1) ^ -(value & 1) if field.type in _SIGNED else value


def _skip(raw: bytes, kind: int, at: int, end: int) -> int:
    if kind == _VARINT:
        return varint(raw, at, end)[1]
    if kind == _BYTES:
        size, body = varint(raw, at, end)
        stop = body + size
    elif kind in (_EIGHT, _FOUR):
        stop = at + (8 if kind == _EIGHT else 4)
    else:
        raise WireError(f"a field of kind {kind} at byte {at}")
    if stop > end:
        raise WireError(f"a field at byte {at} that ends after its message")
    return stop


def _order(name: str, number: int, last: int, *, repeated: bool) -> str:
    if number < last:
        return f"{name}: not in its place"
    return f"{name}: more than once" if number == last and not repeated else ""
