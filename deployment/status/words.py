"""How figures, moments and ages are written on the page; what is not known is a dash."""

from datetime import datetime

NOTHING = "-"


def write_bytes(count: float | None) -> str:
    """Write bytes with a decimal prefix: 760 B, 1.4 kB, 1.36 MB."""
    if count is None:
        return NOTHING
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.4g} GB"


def write_share(share: float | None) -> str:
    """Write a share as a percentage."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def write_count(count: int | None) -> str:
    """Write a whole number."""
    return NOTHING if count is None else f"{count:,}".replace(",", " ")


def write_seconds(seconds: float | None) -> str:
    """Write a duration in seconds, with one digit after the point below a hundred."""
    return NOTHING if seconds is None else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def write_nats(nats: float | None) -> str:
    """Write an entropy increase."""
    return NOTHING if nats is None else f"{nats:.3g} nats"


def write_plain(value: float | None) -> str:
    """Write a figure without a unit."""
    return NOTHING if value is None else f"{value:.2f}"


def write_age(seconds: float | None) -> str:
    """Write how old something is; the page's script writes the same."""
    if seconds is None:
        return NOTHING
    for limit, divisor, unit in ((100, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / divisor + 0.5)} {unit}"
    return f"{int(seconds / 86400 + 0.5)} days"


def write_moment(value: str | None, *, seconds: bool = False) -> str:
    """Write an ISO-UTC moment of a snapshot for people, to the minute or to the second."""
    if value is None:
        return NOTHING
    return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M{':%S' if seconds else ''} UTC}"
