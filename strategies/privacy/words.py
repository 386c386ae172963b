"""What reports say of privacy, in one line."""

from collections.abc import Mapping
from typing import Any, get_args

from personalization.wire.privacy_terms import NoiseMode


def write_privacy(record: object) -> str:
    """Return the line for what a round's record says: `none`, or epsilon, delta and who adds the noise."""
    if not isinstance(record, Mapping):
        return "none"
    mode = record.get("mode")
    who = mode if mode in get_args(NoiseMode) else "unknown"
    return f"epsilon {_figure(record, 'epsilon')}, delta {_figure(record, 'delta')}, {who} noise"


def _figure(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return f"{value:.3g}" if isinstance(value, int | float) else "unknown"
