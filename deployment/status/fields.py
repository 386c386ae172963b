"""Values out of files that may hold anything: each is what was expected, or None."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

_LONGEST_TEXT = 200
# What could be a node's id or key, in decimal or hexadecimal: it never reaches a page, whatever text it stands in.
_IDENTIFIER = re.compile(r"[0-9a-fA-F]{12,}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that `raw` holds. Raises ValueError for anything else, NaN and infinity included."""
    try:
        record = json.loads(raw, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def number(value: Any, *, most: float = 1e18) -> float | None:
    """Return a finite number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= most and math.isfinite(value) else None


def count(value: Any) -> int | None:
    """Return a whole number of 0 or more."""
    return value if isinstance(value, int) and number(value) is not None else None


def text(value: Any) -> str | None:
    """Return one line of text, cut to a bearable length and without anything that could be the id of a node."""
    if not isinstance(value, str):
        return None
    line = _IDENTIFIER.sub("…", " ".join(value.split()))
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 1] + "…"


def name(value: Any) -> str | None:
    """Return a name of small letters, digits, - and _, as phases, processes and error codes have; no identifier."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) and not _IDENTIFIER.search(value) else None


def moment(value: Any) -> datetime | None:
    """Return an ISO date and time; one without a zone is taken as UTC."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def iso(value: datetime | None) -> str | None:
    """Write a moment as ISO-UTC, whole seconds."""
    return None if value is None else value.astimezone(UTC).isoformat(timespec="seconds")


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, empty where there is none."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, none where there is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def counts(value: Any) -> dict[str, int]:
    """Return an object's counts by name, sorted; what is neither is left out."""
    found = {key: count(item) for key, item in mapping(value).items() if name(key) is not None}
    return {key: item for key, item in sorted(found.items()) if item is not None}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
