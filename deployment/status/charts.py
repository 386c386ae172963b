"""Small bar charts as SVG that fits any width: positions across are shares of it, text keeps its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_HEIGHT, _BASE, _TOP = 132, 108, 16
_MOST_LABELS = 12


@dataclass(frozen=True)
class Bar:
    """One bar. label: what stands below it. share: of the chart's height, None for what is not known. told: in words.

    strong: whether it stands out.
    """

    label: str
    share: float | None
    told: str
    strong: bool = True


def bar_chart(bars: Sequence[Bar], *, title: str, most: float) -> str:
    """Return a chart of `bars`; `most` is the share (above 0) that reaches the top, and stands there as a percentage.

    A screen reader is told `title`, and of each bar what is told of it when the pointer rests on it.
    """
    step = 100.0 / max(1, len(bars))
    every = -(-len(bars) // _MOST_LABELS)
    parts = [_bar(bar, number * step, step, most) for number, bar in enumerate(bars)]
    parts += [
        f'<text class="tick" x="{(number + 0.5) * step:.3f}%" y="{_BASE + 17}" text-anchor="middle">'
        f"{escape(bar.label)}</text>"
        for number, bar in enumerate(bars)
        if bar.label and (number % every == 0)
    ]
    return (
        f'<svg class="bars" width="100%" height="{_HEIGHT}" role="group" aria-label="{escape(title)}">'
        f'<text class="tick" x="0" y="11">{100 * most:.3g} %</text>'
        f'<line class="axis" x1="0" x2="100%" y1="{_TOP}" y2="{_TOP}"/>'
        f'<line class="axis" x1="0" x2="100%" y1="{_BASE}" y2="{_BASE}"/>{"".join(parts)}</svg>'
    )


def _bar(bar: Bar, left: float, step: float, most: float) -> str:
    height = 0.0 if bar.share is None else min(1.0, bar.share / most) * (_BASE - _TOP)
    kind = "unknown" if bar.share is None else ("strong" if bar.strong else "weak")
    # What is not known is a stub with a broken outline, a zero is nothing but the axis.
    drawn = 6.0 if bar.share is None else height
    return (
        f'<g role="img" aria-label="{escape(bar.told)}"><title>{escape(bar.told)}</title>'
        f'<rect class="room" x="{left:.3f}%" width="{step:.3f}%" y="{_TOP}" height="{_BASE - _TOP}"/>'
        f'<rect class="{kind}" x="{left + 0.12 * step:.3f}%" width="{0.76 * step:.3f}%" '
        f'y="{_BASE - drawn:.1f}" height="{drawn:.1f}"/></g>'
    )
