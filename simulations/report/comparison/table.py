"""What a comparison prints at its end, as Rich tables from the dictionary of summary.json."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from simulations.report.comparison.footnotes import footnotes
from simulations.report.comparison.metrics import (
    ZEROS,
    Estimate,
    Row,
    Summary,
    estimate,
    format_interval,
    format_value,
    kind_of,
    mean,
    method_label,
    point_rows,
    zeros_rows,
)
from simulations.report.comparison.quality import ComparedQuality, compared_by

# Narrow enough for 80 columns: what a method costs, as means, below what it is worth with intervals.
_COSTS = (
    ("weights_kept", "kept"),
    ("bytes", "size"),
    ("evaluations", "evals"),
    ("uplink_bytes", "up/round"),
    ("rounds_to_target", "rounds"),
    ("cpu_seconds", "CPU"),
)


def comparison_tables(summary: Summary) -> Iterator[Table]:
    """Yield for each point of the sweep a table of accuracies with 95 % intervals and one of costs."""
    for number, point in enumerate(summary["points"]):
        rows = point_rows(summary, number)
        yield _worth(
            rows,
            compared_by(summary),
            f"{point['label']}: mean over {_count(len(summary['seeds']), 'seed')}, 95 % interval",
        )
        yield _costs(rows, f"{point['label']}: costs, means")
        if zeros_rows(rows):
            yield _zeros(zeros_rows(rows), f"{point['label']}: zeros alone are not faster, means")


def failed_lines(summary: Summary) -> list[str]:
    """Return a line for each failed cell: where in the comparison it stood and what went wrong."""
    return [
        f"{cell_name(row['method'], summary['points'][row['point']]['label'], failed['seed'])}: {failed['error']}"
        for row in summary["rows"]
        for failed in row["failed"]
    ]


def cell_name(method: str, point: str, seed: int) -> str:
    """Return what a cell is called."""
    return f"{method}, {point}, seed {seed}"


def _worth(rows: Sequence[Row], quality: ComparedQuality, title: str) -> Table:
    kinds = {quality.metric: quality.kind, "worst_decile": quality.kind, "difference": quality.difference_kind}
    table = _table(title, [quality.name, "worst tenth", quality.difference_heading])
    for row in rows:
        table.add_row(_name(row), *(_with_interval(estimate(row, name), kind) for name, kind in kinds.items()))
    return table


def _costs(rows: Sequence[Row], title: str) -> Table:
    table = _table(title, [heading for _, heading in _COSTS])
    for row in rows:
        table.add_row(_name(row), *(format_value(mean(row, name), kind_of(row, name)) for name, _ in _COSTS))
    return table


def _zeros(rows: Sequence[Row], title: str) -> Table:
    table = _table(title, [heading.removeprefix("size ").removeprefix("size, ") for _, heading, _ in ZEROS])
    for row in rows:
        table.add_row(_name(row), *(format_value(mean(row, name), kind) for name, _, kind in ZEROS))
    table.caption = "\n".join(note.sentence() for note in footnotes(row["method"] for row in rows))
    table.caption_justify = "left"
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("method", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _with_interval(found: Estimate | None, kind: str) -> Text:
    """Write the mean and, below it, its interval: side by side three of them would not fit a terminal."""
    if found is None:
        return Text("-")
    return Text(format_value(found["mean"], kind)).append(f"\n{format_interval(found, kind)}", style="dim")


def _name(row: Row) -> str:
    failed = len(row["failed"])
    return method_label(row["method"]) + (f" ({_count(failed, 'cell')} failed)" if failed else "")


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
