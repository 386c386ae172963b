"""What a comparison's summary holds, read and written for people: methods, estimates with their intervals, metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from simulations.report.comparison.footnotes import ARM_PREFIX, mark_of
from simulations.report.comparison.quality import IMAGES, TEXT, ComparedQuality
from simulations.report.units import format_figure

Estimate = Mapping[str, float | None]
Row = Mapping[str, Any]
Summary = Mapping[str, Any]

# Key of a row's metrics, what it is, how it is written (see `format_value`); in the order of the table.
_QUALITY = {
    IMAGES.metric: (
        ("personal_accuracy", "accuracy", "share"),
        ("worst_decile", "accuracy, worst tenth of the clients", "share"),
        ("difference", "paired difference, points", "points"),
        ("change", "paired change from the first point, points", "points"),
        ("dense_accuracy", "dense accuracy", "share"),
        ("dense_fitted_accuracy", "dense, head fitted", "share"),
    ),
    TEXT.metric: (
        ("perplexity_ratio", "perplexity, personal to dense", "ratio"),
        ("worst_decile", "the same, worst tenth of the clients", "ratio"),
        ("difference", "paired, times the first", "factor"),
        ("change", "paired, times the first point", "factor"),
        ("dense_perplexity", "dense perplexity", "perplexity"),
    ),
}
_COSTS = (
    ("agreement", "agrees with dense", "share"),
    ("weights_kept", "weights kept", "share"),
    ("products_kept", "products computed", "share"),
    ("bytes", "size", "bytes"),
    ("bytes_in_full", "size, zeros in full", "bytes"),
    ("bytes_zipped", "size, zipped", "bytes"),
    ("evaluations", "evaluations a client", "count"),
    ("uplink_bytes", "up, a client and round", "bytes"),
    ("uplink_bytes_total", "up, a client, whole run", "bytes"),
    ("downlink_bytes_total", "down, a client, whole run", "bytes"),
    ("rounds_to_target", "rounds to target", "count"),
    ("wall_seconds", "wall clock", "seconds"),
    ("cpu_seconds", "processor time", "seconds"),
)
# Of methods that store zeros sparsely alone, in the order of their own table.
ZEROS = (
    ("bytes_in_full", "size in full", "bytes"),
    ("bytes", "size, stored sparsely", "bytes"),
    ("bytes_zipped", "size, zipped", "bytes"),
    ("products_kept", "products computed", "share"),
)


def metrics_of(quality: ComparedQuality) -> tuple[tuple[str, str, str], ...]:
    """Return the metrics of comparisons by `quality`: key, what it is, how it is written; in the order of the table."""
    return (*_QUALITY[quality.metric], *_COSTS)


def quality_of_row(row: Row) -> ComparedQuality:
    """Return what a row's method is compared by."""
    return TEXT if estimate(row, TEXT.metric) is not None else IMAGES


def kind_of(row: Row, name: str) -> str:
    """Return how a metric of a row is written."""
    return next(kind for key, _, kind in metrics_of(quality_of_row(row)) if key == name)


def is_arm(method: str) -> bool:
    """Say whether a method is a reference arm; all others are strategies."""
    return method.startswith(ARM_PREFIX)


def method_label(method: str) -> str:
    """Return the name under which a method is shown."""
    mark = mark_of(method)
    return method.removeprefix(ARM_PREFIX) + (f" {mark}" if mark else "")


def zeros_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of methods whose size is one of zeros stored sparsely."""
    return [row for row in rows if estimate(row, "bytes_in_full") is not None]


def ordered_methods(summary: Summary) -> list[str]:
    """Return the methods as they are shown: strategies in their order, then reference arms in theirs."""
    return sorted(summary["methods"], key=is_arm)


def point_rows(summary: Summary, point: int) -> list[Row]:
    """Return the rows of one point of the sweep in the order of `ordered_methods`."""
    rows = {row["method"]: row for row in summary["rows"] if row["point"] == point}
    return [rows[method] for method in ordered_methods(summary) if method in rows]


def estimate(row: Row, name: str) -> Estimate | None:
    """Return a metric's {"mean", "low", "high"}, or None if it was not measured."""
    found: Estimate | None = (row.get("metrics") or {}).get(name)
    return None if found is None or found.get("mean") is None else found


def mean(row: Row, name: str) -> float | None:
    """Return a metric's mean, or None if it was not measured."""
    found = estimate(row, name)
    return None if found is None else found["mean"]


def interval(found: Estimate) -> tuple[float, float] | None:
    """Return the ends of a 95 % interval, or None if there is none."""
    low, high = found.get("low"), found.get("high")
    return None if low is None or high is None else (low, high)


def format_value(value: float | None, kind: str) -> str:
    """Write a value of `kind` points (a difference of shares, as percentage points) or of a kind of `format_figure`.

    factor: a ratio of two figures.
    """
    if value is not None and kind == "points":
        return f"{100 * value:+.1f}"
    if value is not None and kind == "factor":
        return f"{value:.3f}"
    return format_figure(value, kind)


def format_interval(found: Estimate | None, kind: str) -> str:
    """Write an interval as `92.1 to 94.0`, or nothing if there is none; only bytes carry their unit."""
    ends = None if found is None else interval(found)
    if ends is None:
        return ""
    if kind == "share":
        return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
    if kind == "seconds":
        return f"{ends[0]:.1f} to {ends[1]:.1f}"
    return f"{format_value(ends[0], kind)} to {format_value(ends[1], kind)}"


def format_estimate(found: Estimate | None, kind: str) -> str:
    """Write `93.2 % (92.1 to 94.0)`; what was not measured is a dash."""
    if found is None:
        return "-"
    ends = format_interval(found, kind)
    return format_value(found.get("mean"), kind) + (f" ({ends})" if ends else "")


def hover_lines(row: Row, names: Sequence[str] = ()) -> list[str]:
    """Return what is told about one method when the pointer is on it: the measured ones of `names`, or the usual."""
    quality = quality_of_row(row)
    usual = (
        quality.metric,
        "worst_decile",
        "difference",
        "bytes",
        "products_kept",
        "evaluations",
        "uplink_bytes_total",
    )
    known = {name: (label, kind) for name, label, kind in metrics_of(quality)}
    return [
        f"{known[name][0]}: {format_estimate(estimate(row, name), known[name][1])}"
        for name in names or usual
        if estimate(row, name) is not None
    ]
