"""A still picture of a run for documents: `python -m simulations.report.picture report.json picture.svg`.

Left: accuracy against size, dense and personal, for each client. Right: which layers each client keeps as its own.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from personalization.system.files import write_atomically
from simulations.report.figures import DENSE, GENERIC, PERSONAL, layer_names, personal_cells
from simulations.report.quality import IMAGES

WIDTH, HEIGHT = 960, 420
_TOP, _BOTTOM = 64, 352
_INK, _QUIET, _GRID, _LINK = "#1f2937", "#6b7280", "#e5e7eb", "#c3cbd8"

_Axis = Callable[[float], float]


def picture(report: Mapping[str, Any]) -> str:
    """Return the picture of `report` (the dictionary of report.json) as SVG."""
    title = f"{len(report['clients'])} clients, each with its own model"
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="13" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            *_scatter(report, left=70, right=510),
            *_map(report, left=600, right=930),
            "</svg>\n",
        )
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _QUIET, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(text)}</text>'


def _scatter(report: Mapping[str, Any], *, left: float, right: float) -> list[str]:
    clients = report["clients"]
    dense_size = report["summary"]["bytes_dense"] / 1e6
    sizes = [client["bytes"] / 1e6 for client in clients]
    values = [100 * client[key] for client in clients for key in ("dense_fitted_accuracy", "personal_accuracy")]
    lowest = 10 * int(min([*values, 100]) // 10)
    across = _axis(0.0, 1.05 * max([dense_size, *sizes]), left, right)
    up = _axis(lowest, 100.0, _BOTTOM, _TOP)
    parts = [
        _text(left - 40, 28, "Accuracy against size", colour=_INK, more=' font-size="16" font-weight="600"'),
        _text(left - 40, 48, "accuracy on own test images, %"),
        *_horizontal_grid(lowest, up, left, right),
        *_size_ticks(max([dense_size, *sizes]), across),
        _text((left + right) / 2, _BOTTOM + 44, "size of the model, MB", anchor="start"),
    ]
    for client, size in zip(clients, sizes, strict=True):
        dense, personal = up(100 * client["dense_fitted_accuracy"]), up(100 * client["personal_accuracy"])
        parts.append(
            f'<line x1="{across(dense_size):.1f}" y1="{dense:.1f}" x2="{across(size):.1f}" y2="{personal:.1f}" '
            f'stroke="{_LINK}"/>'
        )
    for client, size in zip(clients, sizes, strict=True):
        parts += [
            _dot(across(dense_size), up(100 * client["dense_fitted_accuracy"]), DENSE),
            _dot(across(size), up(100 * client["personal_accuracy"]), PERSONAL),
        ]
    legend = _BOTTOM + 40
    for offset, colour, name in ((0, PERSONAL, "personal"), (76, DENSE, IMAGES.dense_name)):
        parts += [_dot(left + offset, legend, colour), _text(left + offset + 9, legend + 4, name)]
    return parts


def _axis(start: float, end: float, first: float, last: float) -> _Axis:
    return lambda value: first + (value - start) / (end - start) * (last - first)


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity="0.8" stroke="white"/>'


def _horizontal_grid(lowest: int, up: _Axis, left: float, right: float) -> list[str]:
    parts = []
    for tick in range(lowest, 101, 10 if lowest < 70 else 5):
        y = up(tick)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(left - 8, y + 4, str(tick), anchor="end"))
    return parts


def _size_ticks(largest: float, across: _Axis) -> list[str]:
    step = round_step(largest / 5)
    ticks = [step * number for number in range(int(largest / step) + 1)]
    return [_text(across(tick), _BOTTOM + 20, f"{tick:.6g}", anchor="middle") for tick in ticks]


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below `least` (> 0)."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _map(report: Mapping[str, Any], *, left: float, right: float) -> list[str]:
    names, cells = layer_names(report), personal_cells(report)
    wide, high = (right - left) / len(names), (_BOTTOM - _TOP) / len(cells)
    gap = min(2.0, 0.2 * high)
    parts = [
        _text(left - 40, 28, "Layers that a client needs most", colour=_INK, more=' font-size="16" font-weight="600"'),
        _text(left - 40, 48, "one row a client, one column a layer"),
    ]
    for row, flags in enumerate(cells):
        for column, flag in enumerate(flags):
            parts.append(
                f'<rect x="{left + column * wide:.1f}" y="{_TOP + row * high:.1f}" width="{wide - gap:.1f}" '
                f'height="{high - gap:.1f}" fill="{PERSONAL if flag else GENERIC}"/>'
            )
    for column, name in enumerate(names):
        x, y = left + (column + 0.5) * wide + 4, _BOTTOM + 12
        parts.append(_text(x, y, name, anchor="end", more=f' font-size="11" transform="rotate(-45 {x:.1f} {y:.1f})"'))
    return parts


def main() -> None:
    """Read report.json and write the picture."""
    parser = argparse.ArgumentParser(description="Draw a run's report.json as an SVG picture.")
    parser.add_argument("report", type=Path, help="report.json of a run")
    parser.add_argument("out", type=Path, help="SVG file to write")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    drawn = picture(json.loads(arguments.report.read_text()))
    write_atomically(arguments.out, drawn.encode(), mode=0o644)
    print(arguments.out)


if __name__ == "__main__":
    main()
