"""Tables of settings that people write: unknown keys and wrong types are named, with what was probably meant."""

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from personalization.errors import UserError

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the one of `names` that is most like `name`."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def unknown(what: str, name: str, names: Iterable[str]) -> UserError:
    """Return the error for a name that there is not, with the nearest there is and all of them."""
    names = list(names)
    return UserError(f"{what} {name!r}: unknown; did you mean {nearest(name, names)}? There are: {', '.join(names)}")


def field_types(settings: type, only: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the annotated type of each field of a dataclass, or of those in `only`."""
    hints = get_type_hints(settings)
    return {name: hints[name] for name in (only or [field.name for field in fields(settings)])}


def read_table(table: str, values: object, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a table by key, with whole numbers as floats where a number is due.

    table: its name, for errors. kinds: the type of each key that it may have, see `read_value`. Raises UserError for
    keys that there are not and for values of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{table}: expected a table, [{table}], not {values!r}")
    read = {}
    for key, value in values.items():
        if key not in kinds:
            raise unknown(f"key of {table}", str(key), kinds)
        read[str(key)] = read_value(f"{table}.{key}", value, kinds[key])
    return read


def read_dataclass(table: str, values: object, settings: type) -> Any:
    """Return `settings`, a dataclass, with the values of a table. Raises UserError, also for a key that is missing."""
    read = read_table(table, values, field_types(settings))
    for field in fields(settings):
        if field.name not in read and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{table}.{field.name} is missing: expected {_word(field_types(settings)[field.name])}")
    return settings(**read)


def read_value(name: str, value: object, kind: Any) -> Any:
    """Return `value` if it is of type `kind`: bool, int, float, str, Path (as text), a Literal, or one of them or None.

    A whole number does for a float. Raises UserError.
    """
    base, optional = _base(kind)
    if value is None and optional:
        return None
    if get_origin(base) is Literal:
        if value not in get_args(base):
            raise unknown(name, str(value), get_args(base))
        return value
    if base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if base is Path and isinstance(value, str | Path):
        return str(value)
    if type(value) is not base:
        raise UserError(f"{name} {value!r}: expected {_word(kind)}")
    return value


def parse_text(text: str, kind: Any) -> object:
    """Return what a text from the command line means where `kind` is due; the text itself where it means nothing."""
    base, _ = _base(kind)
    if base is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if base in (int, float):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text


def _base(kind: Any) -> tuple[Any, bool]:
    """Return the type without None, and whether None was one of its alternatives."""
    if get_origin(kind) in (Union, types.UnionType):
        (base,) = [part for part in get_args(kind) if part is not type(None)]
        return base, True
    return kind, False


def _word(kind: Any) -> str:
    base, _ = _base(kind)
    return f"one of {', '.join(get_args(base))}" if get_origin(base) is Literal else _WORDS[base]
