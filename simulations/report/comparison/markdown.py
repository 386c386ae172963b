"""Tables of a comparison for documents: `python -m simulations.report.comparison.markdown runs/x/summary.json`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simulations.report.comparison.footnotes import footnotes
from simulations.report.comparison.metrics import (
    ZEROS,
    Estimate,
    Row,
    estimate,
    format_value,
    interval,
    method_label,
    metrics_of,
    ordered_methods,
    point_rows,
    zeros_rows,
)
from simulations.report.comparison.quality import ComparedQuality, compared_by

# What a table of one point shows of each method beside its quality: metric and heading.
_COLUMNS = (
    ("weights_kept", "weights kept, %"),
    ("evaluations", "evaluations"),
    ("uplink_bytes_total", "up a client"),
    ("downlink_bytes_total", "down a client"),
    ("cpu_seconds", "CPU, s"),
)


def markdown(summary: dict[str, Any]) -> str:
    """Return the tables of a summary.json: methods down, or for a sweep its points down and methods across."""
    return "\n\n".join(_sweep(summary) if len(summary["points"]) > 1 else _single(summary)) + "\n"


def _single(summary: dict[str, Any]) -> Iterator[str]:
    rows, quality, kinds = point_rows(summary, 0), compared_by(summary), _kinds(summary)
    unit = _unit(quality)
    worth = ((quality.metric, quality.name + unit), ("worst_decile", f"worst tenth{unit}"))
    columns = (*worth, ("difference", quality.difference_heading), *_COLUMNS)
    shown = [(name, heading) for name, heading in columns if any(estimate(row, name) for row in rows)]
    body = [
        [method_label(row["method"]), *(_cell(estimate(row, name), kinds[name]) for name, _ in shown)] for row in rows
    ]
    yield _table(["method", *(heading for _, heading in shown)], body)
    yield from _zeros(rows)
    late = [row for row in rows if row["late"]]
    if late:
        heads = ["late joiners", quality.name + unit, "evaluations"]
        cells = [
            [
                method_label(row["method"]),
                _cell(row["late"][quality.metric], quality.kind),
                _cell(row["late"]["evaluations"], "count"),
            ]
            for row in late
        ]
        yield _table(heads, cells)


def _zeros(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the sizes of methods that only put zeros in a model, if there are any, and what to know of them."""
    found = zeros_rows(rows)
    if found:
        heads = [heading + (", %" if kind == "share" else "") for _, heading, kind in ZEROS]
        yield _table(
            ["zeros alone", *heads],
            [[method_label(r["method"]), *(_cell(estimate(r, name), kind) for name, _, kind in ZEROS)] for r in found],
        )
        yield "\n".join(note.sentence() for note in footnotes(row["method"] for row in found))


def _sweep(summary: dict[str, Any]) -> Iterator[str]:
    methods, quality, kinds = ordered_methods(summary), compared_by(summary), _kinds(summary)
    unit = _unit(quality)
    change = "Paired change of accuracy from the first line, points"
    if quality.ratios:
        change = "Perplexity, times that of the first line, paired"
    for name, heading in (
        (quality.metric, f"Mean {quality.name}{unit}"),
        ("worst_decile", f"{quality.name.capitalize()} of the worst tenth of the clients{unit}"),
        ("change", change),
    ):
        body = []
        for number, point in enumerate(summary["points"]):
            found = {row["method"]: estimate(row, name) for row in point_rows(summary, number)}
            if any(found.values()):
                body.append([point["label"], *(_cell(found.get(method), kinds[name]) for method in methods)])
        yield f"{heading}:\n\n" + _table(["", *map(method_label, methods)], body)


def _kinds(summary: dict[str, Any]) -> dict[str, str]:
    return {name: kind for name, _, kind in metrics_of(compared_by(summary))}


def _unit(quality: ComparedQuality) -> str:
    return "" if quality.ratios else ", %"


def _cell(found: Estimate | None, kind: str) -> str:
    if found is None:
        return "-"
    value, ends = format_value(found["mean"], kind).removesuffix(" %"), interval(found)
    if kind in ("ratio", "factor") and ends is not None:
        return f"{value} ({ends[0]:.3f} to {ends[1]:.3f})"
    if kind not in ("share", "points") or ends is None:
        return value
    return f"{value} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print the tables of the summary that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary", type=Path, help="summary.json of a comparison")
    print(markdown(json.loads(parser.parse_args().summary.read_text())), end="")


if __name__ == "__main__":
    main()
