"""What reports say of privacy, in one line."""

from collections.abc import Mapping
from typing import Any


def write_privacy(record: object) -> str:
    """Return the line for what a round's record says: `none`, or epsilon, delta and who adds the noise."""
    if not isinstance(record, Mapping):
        return "none"
    return f"epsilon {_figure(record, 'epsilon')}, delta {_figure(record, 'delta')}, {record.get('mode')} noise"


def _figure(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return f"{value:.3g}" if isinstance(value, int | float) else "unknown"
