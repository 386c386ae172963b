"""The tables of `benchmarks.personalization`, in Markdown, and what they have to show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import mean_interval, worst_decile
from benchmarks.personalization.rows import BUDGETS, COLUMNS, ROWS, SAME_EVALUATIONS

Record = dict[str, Any]


def pick(cells: Sequence[Record], row: str, column: str, budget: float, key: str = "accuracy") -> NDArray[np.float64]:
    """Return one figure of every client for a cell of the table, in the order of seeds and clients."""
    chosen = [c for c in cells if c["row"] == row and c["column"] == column and c["budget"] == budget]
    return np.array([c[key] for c in sorted(chosen, key=lambda c: (c["seed"], c["client"]))])


def _dense(sensed: Sequence[Record], key: str = "dense") -> NDArray[np.float64]:
    return np.array([r[key] for r in sorted(sensed, key=lambda r: (r["seed"], r["client"]))])


def _percent(values: NDArray[np.float64]) -> str:
    mean, half = mean_interval(list(values))
    return f"{100 * mean:.2f} ± {100 * half:.2f}"


def summary_tables(sensed: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return a table for each budget: accuracies (mean, worst decile, on all classes), evaluations and seconds."""
    dense = _dense(sensed)
    lines = [
        f"{len(dense)} clients. Dense model: {_percent(dense)} % with its head fitted to the client's class mixture "
        f"(worst decile {100 * worst_decile(list(dense)):.2f}), "
        f"{_percent(_dense(sensed, 'dense_plain_head'))} % without; "
        f"on all classes {_percent(_dense(sensed, 'dense_all_classes'))} % with it.",
        "",
    ]
    for budget in BUDGETS:
        lines += [f"Budget {budget}: mean ± 95 % interval / worst decile / accuracy on all classes, in %.", ""]
        lines += [
            "| row | " + " | ".join(COLUMNS) + " | evaluations | seconds |",
            "|---|" + "---|" * (len(COLUMNS) + 2),
        ]
        for row in ROWS:
            entries = [_entry(cells, row, column, budget) for column in COLUMNS]
            spent = [
                pick(cells, row, column, budget, "evaluations").mean() for column in ("compensated", "step buffer")
            ]
            seconds = " / ".join(f"{pick(cells, row, column, budget, 'seconds').mean():.2f}" for column in COLUMNS)
            lines.append(
                f"| {row} | " + " | ".join(entries) + f" | {spent[0]:.0f} / {spent[1]:.1f} buffered | {seconds} |"
            )
        lines.append("")
    return "\n".join(lines)


def _entry(cells: Sequence[Record], row: str, column: str, budget: float) -> str:
    accuracy, everything = pick(cells, row, column, budget), pick(cells, row, column, budget, "all_classes")
    return f"{_percent(accuracy)} / {100 * worst_decile(list(accuracy)):.2f} / {100 * everything.mean():.1f}"


def checks(sensed: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return what the table has to show, each as a paired difference over clients with its 95 % interval."""
    dense, best = _dense(sensed), "fleet prior + 6 own"
    lines = ["Paired differences over clients, in points of accuracy:", ""]

    def compare(text: str, one: NDArray[np.float64], other: NDArray[np.float64], least: float, *, beyond: bool) -> None:
        mean, half = mean_interval(list(100 * (one - other)))
        reached = mean - half > least if beyond else mean >= least
        lines.append(f"- {text}: {mean:+.2f} ± {half:.2f}, {'reached' if reached else 'NOT reached'}")

    for budget in BUDGETS:
        own = pick(cells, "own one at a time", "compensated", budget)
        for row in ("fleet prior", best):
            compare(f"(a) {budget}: {row} against own", pick(cells, row, "compensated", budget), own, 0.0, beyond=False)
    for budget in (0.5, 0.3):
        for rival in ("uniform", "depth-linear"):
            other = pick(cells, rival, "compensated", budget)
            compare(
                f"(b) {budget}: {best} against {rival}",
                pick(cells, best, "compensated", budget),
                other,
                0.0,
                beyond=True,
            )
    for budget, column, least in ((0.5, "compensated", -1.0), (0.3, "compensated", -3.0), (0.3, "distilled", -1.0)):
        compare(
            f"(c) {budget} {column}: {best} against dense",
            pick(cells, best, column, budget),
            dense,
            least,
            beyond=False,
        )
    shot = pick(cells, SAME_EVALUATIONS, "compensated", 0.3)
    compare(
        "(d) 0.3: step buffer against one shot, 8 evaluations each",
        pick(cells, "fleet prior", "step buffer", 0.3),
        shot,
        0.0,
        beyond=False,
    )
    buffered = pick(cells, "uniform", "step buffer", 0.3)
    shot = pick(cells, "own compressed-sensed", "compensated", 0.3)
    text = "(d) 0.3, without a fleet: step buffer (8 evaluations) against one shot after 12 own probes"
    compare(text, buffered, shot, 0.0, beyond=False)
    return "\n".join(lines) + "\n"
