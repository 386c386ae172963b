"""A comparison's picture for documents: `python -m simulations.report.comparison.picture summary.json picture.svg`.

Each method's mean accuracy and the worst tenth of its clients with their 95 % intervals, at one point of a sweep.
"""

import argparse
import json
from collections.abc import Callable
from html import escape
from pathlib import Path

from personalization.system.files import write_atomically
from simulations.report.comparison.footnotes import footnotes
from simulations.report.comparison.marks import Mark, method_marks, svg_symbol
from simulations.report.comparison.metrics import (
    Row,
    Summary,
    estimate,
    format_value,
    interval,
    mean,
    method_label,
    point_rows,
)
from simulations.report.comparison.quality import IMAGES, compared_by
from simulations.report.picture import round_step

WIDTH = 960
_TOP, _ROW, _LEFT, _RIGHT, _NOTE = 84, 26, 330, 850, 18
_INK, _QUIET, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_METRICS = ("personal_accuracy", "worst_decile")

_Axis = Callable[[float], float]


def comparison_picture(summary: Summary, *, point: int = 0) -> str:
    """Return the picture of one point of `summary` (the dictionary of summary.json) as SVG."""
    rows, marks = point_rows(summary, point), method_marks(summary)
    bottom = _TOP + _ROW * len(rows)
    height = bottom + 74 + _NOTE * max(0, len(footnotes(summary["methods"])) - 1)
    least, most = _range(rows)
    across = _axis(least, most)
    title = f"Accuracy by method: {summary['scenario'].get('name') or 'a scenario'}"
    parts = [_text(20, 30, title, colour=_INK, more=' font-size="16" font-weight="600"')]
    parts.append(_text(20, 52, _subtitle(summary, point)))
    parts += _grid(least, most, across, bottom)
    for number, row in enumerate(rows):
        parts += _line(row, marks[row["method"]], across, _TOP + (number + 0.5) * _ROW)
    parts += _legend(summary, bottom + 56)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _subtitle(summary: Summary, point: int) -> str:
    where = f"{summary['points'][point]['label']}, " if len(summary["points"]) > 1 else ""
    seeds = len(summary["seeds"])
    return f"{where}{seeds} seed{'' if seeds == 1 else 's'}, 95 % intervals over seeds and clients"


def _range(rows: list[Row]) -> tuple[float, float]:
    """The ends of the axis in percent, round and at least ten apart."""
    found = [one for row in rows for name in _METRICS if (one := estimate(row, name)) is not None]
    ends = [100 * end for one in found for end in (*(interval(one) or ()), one["mean"] or 0.0)]
    least = 5 * (min([*ends, 90.0]) // 5)
    return least, max(least + 10, 5 * -(-max([*ends, least]) // 5))


def _axis(least: float, most: float) -> _Axis:
    return lambda share: _LEFT + (100 * share - least) / (most - least) * (_RIGHT - _LEFT)


def _grid(least: float, most: float, across: _Axis, bottom: float) -> list[str]:
    step, parts = max(1.0, round_step((most - least) / 8)), []
    tick = step * -(-least // step)
    while tick <= most + 1e-9:
        x = across(tick / 100)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{_GRID}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:g} %", anchor="middle"))
        tick += step
    return parts


def _line(row: Row, mark: Mark, across: _Axis, y: float) -> list[str]:
    label = _text(_LEFT - 14, y + 4, method_label(row["method"]), anchor="end", colour=_INK)
    value = _text(_RIGHT + 16, y + 4, format_value(mean(row, "personal_accuracy"), "share"), colour=_INK)
    return [label, *_worst(row, mark, across, y), *_mean(row, mark, across, y), value]


def _mean(row: Row, mark: Mark, across: _Axis, y: float) -> list[str]:
    centre = mean(row, "personal_accuracy")
    if centre is None:
        return []
    return [*_interval(row, "personal_accuracy", mark.colour, 1.0, across, y), svg_symbol(mark, across(centre), y, 5.5)]


def _worst(row: Row, mark: Mark, across: _Axis, y: float) -> list[str]:
    centre = mean(row, "worst_decile")
    if centre is None:
        return []
    x = across(centre)
    stroke = f'<path d="M{x:.1f} {y - 7:.1f}V{y + 7:.1f}" stroke="{mark.colour}" stroke-width="2"/>'
    return [*_interval(row, "worst_decile", mark.colour, 0.45, across, y), stroke]


def _interval(row: Row, name: str, colour: str, opacity: float, across: _Axis, y: float) -> list[str]:
    ends = interval(estimate(row, name) or {})
    if ends is None:
        return []
    return [
        f'<line class="interval" x1="{across(ends[0]):.1f}" y1="{y:.1f}" x2="{across(ends[1]):.1f}" y2="{y:.1f}" '
        f'stroke="{colour}" stroke-width="2" stroke-opacity="{opacity:g}"/>'
    ]


def _legend(summary: Summary, y: float) -> list[str]:
    parts = [
        svg_symbol(Mark(_QUIET, "circle"), 26, y - 4, 5),
        _text(38, y, "mean of a strategy"),
        svg_symbol(Mark(_QUIET, "diamond-open"), 186, y - 4, 5),
        _text(198, y, "mean of a reference arm"),
        f'<path d="M376 {y - 11:.1f}V{y + 3:.1f}" stroke="{_QUIET}" stroke-width="2"/>',
        _text(386, y, "worst tenth of the clients"),
    ]
    for number, note in enumerate(footnotes(summary["methods"])):
        parts.append(_text(590, y + _NOTE * number, f"{note.mark} {note.brief}"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _QUIET, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(text)}</text>'


def main() -> None:
    """Read summary.json and write the picture."""
    parser = argparse.ArgumentParser(description="Draw a comparison's summary.json as an SVG picture.")
    parser.add_argument("summary", type=Path, help="summary.json of a comparison")
    parser.add_argument("out", type=Path, help="SVG file to write")
    parser.add_argument("--point", help="label of the sweep's point to draw; the first one by default")
    arguments = parser.parse_args()
    summary = json.loads(arguments.summary.read_text())
    if compared_by(summary) is not IMAGES:
        parser.error(f"{arguments.summary}: is about text; pictures are of accuracy, report.html has the figures")
    labels = [point["label"] for point in summary["points"]]
    if arguments.point is not None and arguments.point not in labels:
        parser.error(f"no point {arguments.point!r} in {arguments.summary}; give one of: {', '.join(labels)}")
    drawn = comparison_picture(summary, point=0 if arguments.point is None else labels.index(arguments.point))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, drawn.encode(), mode=0o644)
    print(arguments.out)


if __name__ == "__main__":
    main()
