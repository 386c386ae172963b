"""The results of `run_inference` as Markdown, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_COLUMNS = {
    "membership": ("membership", True),
    "class": ("class", True),
    "linkage": ("linkage", True),
    "linkage, own vector known": ("linkage", False),
}


def strongest(results: Sequence[Row], attack: str, view: str, *, seen_by_server: bool = True) -> Row | None:
    """Return the row of the attacker with the largest AUC on a view, None if nobody attacked it.

    Chosen by the very figure that is shown, which can only flatter the attackers. seen_by_server: among those that have
    nothing but what a server sees in this view, or among those of linkage that have a client's own vector beside a sum.
    """
    rows = [row for row in results if row["attack"] == attack and row["view"] == view]
    rows = [row for row in rows if row.get("seen_by_server", True) == seen_by_server]
    return max(rows, key=lambda row: float(row["auc"]), default=None)


def markdown(results: Sequence[Row]) -> str:
    """Return a table of the strongest attacker of each attack and view, one of all attackers, one of reconstruction."""
    views = list(dict.fromkeys(row["view"] for row in results))
    lines = [f"| view | {' | '.join(_COLUMNS)} |", "| --- " * (len(_COLUMNS) + 1) + "|"]
    for view in views:
        best = [strongest(results, attack, view, seen_by_server=seen) for attack, seen in _COLUMNS.values()]
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
