"""How each method is marked, the same in every figure, in the legend and in the picture."""

import math
from dataclasses import dataclass

from simulations.report.comparison.metrics import Summary, is_arm, ordered_methods

# Okabe and Ito (2008), "Color Universal Design": told apart with every kind of colour vision. Without the yellow,
# which white paper swallows.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1f2937")
_STRATEGY_SYMBOLS = ("circle", "square", "triangle-up", "triangle-down")
_ARM_SYMBOL = "diamond-open"
# Corners of each symbol: how many, and where the first one is, in degrees clockwise from the top.
_CORNERS = {"square": (4, 45.0), "triangle-up": (3, 0.0), "triangle-down": (3, 180.0), "diamond-open": (4, 0.0)}


@dataclass(frozen=True)
class Mark:
    """A method's colour (as #rrggbb) and its symbol (Plotly's name of it); arms have open symbols."""

    colour: str
    symbol: str

    def faint(self, opacity: float) -> str:
        """Return the colour with an `opacity` (0 to 1), for CSS and Plotly."""
        red, green, blue = (int(self.colour[start : start + 2], 16) for start in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity:g})"


def method_marks(summary: Summary) -> dict[str, Mark]:
    """Return each method's mark; colours repeat only with another symbol."""
    marks: dict[str, Mark] = {}
    strategies = [method for method in ordered_methods(summary) if not is_arm(method)]
    for number, method in enumerate(strategies):
        symbol = _STRATEGY_SYMBOLS[number // len(PALETTE) % len(_STRATEGY_SYMBOLS)]
        marks[method] = Mark(PALETTE[number % len(PALETTE)], symbol)
    for number, method in enumerate(method for method in ordered_methods(summary) if is_arm(method)):
        marks[method] = Mark(PALETTE[number % len(PALETTE)], _ARM_SYMBOL)
    return marks


def svg_symbol(mark: Mark, x: float, y: float, radius: float) -> str:
    """Return a mark as an SVG element around (x, y); `radius` in the drawing's units."""
    paint = f'fill="{mark.colour}" stroke="white"'
    if mark.symbol.endswith("-open"):
        paint = f'fill="white" stroke="{mark.colour}" stroke-width="1.8"'
    if mark.symbol == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {paint}/>'
    count, start = _CORNERS[mark.symbol]
    angles = [math.radians(start + 360 * corner / count) for corner in range(count)]
    points = " ".join(f"{x + 1.2 * radius * math.sin(a):.1f},{y - 1.2 * radius * math.cos(a):.1f}" for a in angles)
    return f'<polygon points="{points}" {paint}/>'


def swatch(mark: Mark) -> str:
    """Return a mark as a small inline picture for a legend."""
    return f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true">{svg_symbol(mark, 7, 7, 4.8)}</svg>'
