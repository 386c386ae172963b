"""The tables and controls of a comparison's page as HTML; by `data-method` and `data-point` the script hides lines."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from simulations.report.comparison.marks import Mark, method_marks, swatch
from simulations.report.comparison.metrics import (
    Estimate,
    Row,
    Summary,
    estimate,
    format_interval,
    format_value,
    is_arm,
    method_label,
    metrics_of,
    ordered_methods,
)
from simulations.report.comparison.quality import ComparedQuality, compared_by


def controls(summary: Summary) -> str:
    """Return the selector of the sweep's point, where there are several, and a check box for each method."""
    points, marks = summary["points"], method_marks(summary)
    options = "".join(f'<option value="{n}">{escape(point["label"])}</option>' for n, point in enumerate(points))
    select = f'<label>Setting <select id="point">{options}</select></label>' if len(points) > 1 else ""
    groups = []
    for name, arms in (("Strategies", False), ("Reference arms", True)):
        boxes = [_box(method, marks[method]) for method in ordered_methods(summary) if is_arm(method) == arms]
        if boxes:
            groups.append(f'<div class="boxes"><b>{name}</b>{"".join(boxes)}</div>')
    return (
        f'<div class="controls">{select}<details id="filter"><summary>Show <span id="count"></span></summary>'
        f'{"".join(groups)}<button type="button" id="all">all</button> <button type="button" id="none">none</button>'
        "</details></div>"
    )


def _box(method: str, mark: Mark) -> str:
    return (
        f'<label><input type="checkbox" value="{escape(method)}" checked>{swatch(mark)}'
        f"{escape(method_label(method))}</label>"
    )


def legend(summary: Summary) -> str:
    """Return the methods with their marks; the ones that are not shown leave it."""
    marks = method_marks(summary)
    items = "".join(
        f'<li data-method="{escape(method)}">{swatch(marks[method])}{escape(method_label(method))}</li>'
        for method in ordered_methods(summary)
    )
    return f'<ul class="legend">{items}</ul>'


def metrics_table(summary: Summary) -> str:
    """Return a line for each point and method with the mean and the 95 % interval of every metric."""
    marks = method_marks(summary)
    lines = [
        (
            row,
            [
                f"{swatch(marks[row['method']])}{_named(row)}",
                *_figures(row, compared_by(summary)),
                escape(row.get("privacy") or "-"),
            ],
        )
        for row in _ordered(summary)
    ]
    return _table(
        ["", *(escape(label) for _, label, _ in metrics_of(compared_by(summary))), "differential privacy"],
        lines,
        "wide",
    )


def _figures(row: Row, quality: ComparedQuality) -> Iterator[str]:
    for name, _, kind in metrics_of(quality):
        yield _figure(estimate(row, name), kind)


def _figure(found: Estimate | None, kind: str) -> str:
    value = format_value(None if found is None else found["mean"], kind)
    ends = format_interval(found, kind)
    return f"{value}<small>{ends}</small>" if ends else value


def late_table(summary: Summary) -> str:
    """Return how clients that joined late fare, or nothing if there were none."""
    quality = compared_by(summary)
    late = [row for row in _ordered(summary) if row.get("late")]
    lines = [
        (
            row,
            [
                _named(row),
                _figure(row["late"].get(quality.metric), quality.kind),
                _figure(row["late"].get("evaluations"), "count"),
            ],
        )
        for row in late
    ]
    return _table(["", f"{quality.name} of late joiners", "evaluations a late joiner"], lines) if lines else ""


def failures_table(summary: Summary) -> str:
    """Return the replies that failed or were refused, counted by their code, or nothing if there were none."""
    lines = [
        (row, [_named(row), escape(code), str(count)])
        for row in _ordered(summary)
        for code, count in sorted((row.get("failures") or {}).items())
    ]
    return _table(["", "what the server noted", "replies"], lines) if lines else ""


def failed_cells_table(summary: Summary) -> str:
    """Return the runs that broke off, each with its seed and its error, or nothing if there were none."""
    labels = [point["label"] for point in summary["points"]]
    lines = [
        ({"method": row["method"]}, [_named(row), *(escape(cell) for cell in cells)])
        for row in _ordered(summary)
        for failed in row.get("failed") or []
        for cells in [(labels[row["point"]], str(failed["seed"]), str(failed["error"]))]
    ]
    return _table(["", "setting", "seed", "error"], lines, "words") if lines else ""


def settings_table(summary: Summary) -> str:
    """Return everything that decides the numbers: seeds, scenario, hyper-parameters, model and versions."""
    facts = {
        "seeds": summary["seeds"],
        **_flat("scenario", summary["scenario"]),
        **_flat("", summary.get("settings") or {}),
        **_flat("model", {k: v for k, v in (summary["model"] or {}).items() if k != "layer_names"}),
        **_flat("version", summary.get("versions") or {}),
    }
    lines: list[tuple[Row, list[str]]] = [
        ({}, [_broken(name), escape(_written(value))]) for name, value in facts.items()
    ]
    return _table([], lines, "words")


def _named(row: Row) -> str:
    return _broken(method_label(row["method"]))


def _broken(name: str) -> str:
    """A name as HTML that may break where its parts join."""
    return re.sub(r"([.+:=_-])", r"\1<wbr>", escape(name))


def own_settings_table(summary: Summary) -> str:
    """Return the hyper-parameters in which methods and points differ, or nothing if there are none."""
    lines = [
        (row, [_named(row), ", ".join(f"{_broken(name)}={escape(_written(value))}" for name, value in own.items())])
        for row in _ordered(summary)
        if (own := _flat("", row.get("settings") or {}))
    ]
    return _table([], lines, "words") if lines else ""


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(f"{name}.{key}" if name else str(key), inner)
    return found


def _ordered(summary: Summary) -> list[Row]:
    order = {method: number for number, method in enumerate(ordered_methods(summary))}
    return sorted(summary["rows"], key=lambda row: (row["point"], order[row["method"]]))


def _table(header: Sequence[str], lines: Sequence[tuple[Row, Sequence[str]]], kind: str = "") -> str:
    """`header` and cells are HTML already."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr{_belongs(row)}><th scope="row">{cells[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells[1:])
        + "</tr>"
        for row, cells in lines
    )
    head = f"<thead><tr>{top}</tr></thead>" if header else ""
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def _belongs(row: Row) -> str:
    method, point = row.get("method"), row.get("point")
    of_method = "" if method is None else f' data-method="{escape(method)}"'
    return of_method + ("" if point is None else f' data-point="{point}"')
