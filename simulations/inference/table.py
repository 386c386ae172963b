"""The results of `run_inference` as Markdown, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_AREAS = ("membership", "class", "linkage")


def strongest(results: Sequence[Row], attack: str, view: str) -> Row | None:
    """Return the row of the attacker with the largest AUC on a view, None if nobody attacked it.

    Chosen by the very figure that is shown, which can only flatter the attackers.
    """
    rows = [row for row in results if row["attack"] == attack and row["view"] == view]
    return max(rows, key=lambda row: float(row["auc"]), default=None)


def markdown(results: Sequence[Row]) -> str:
    """Return a table of the strongest attacker of each attack and view, one of all attackers, one of reconstruction."""
    views = list(dict.fromkeys(row["view"] for row in results))
    lines = [f"| view | {' | '.join(_AREAS)} |", "| --- | --- | --- | --- |"]
    for view in views:
        best = [strongest(results, attack, view) for attack in _AREAS]
        lines.append(f"| {view} | {' | '.join('-' if row is None else _area(row) for row in best)} |")
    lines += ["", "| attack | view | attacker | AUC, 95 % interval | trials | clients |", "| --- " * 6 + "|"]
    for row in results:
        if "auc" in row:
            cells = (row["attack"], row["view"], row["attacker"], _area(row), f"{row['trials']:,}", row["clients"])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "| reconstruction from | similarity | of the baseline | gain, 95 % interval |",
        "| --- | --- | --- | --- |",
    ]
    for row in results:
        if "score" in row:
            gain = f"{row['gain']:+.4f} ({row['gain_low']:+.4f} to {row['gain_high']:+.4f})"
            lines.append(f"| {row['view']} | {row['score']:.4f} | {row['baseline']:.4f} | {gain} |")
    return "\n".join(lines)


def _area(row: Row) -> str:
    return f"{row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
