"""The tables of `benchmarks.text`, in Markdown, and what they have to show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import mean_interval
from benchmarks.text.cells import COLUMNS, COMPENSATED, DISTILLED, FOLDED, MORE_TEXT, OTHERS_TEXT, OTHERS_UNITS
from benchmarks.text.rows import BUDGETS, FLEET_AND_OWN, OWN, ROWS
from benchmarks.text.whole import (
    ARMS,
    CUT,
    DENSE,
    DENSE_TRAINED,
    RECOVERY,
    SHARE,
    TRAINED,
    TRAINING_STEPS,
    TUNED,
    TUNING_STEPS,
    WINDOWS,
)
from personalization.allocation.profiles import PROFILES

Record = dict[str, Any]
Array = NDArray[np.float64]

# Which whole model is to have at most so many times the perplexity of which other.
_AIMS = (
    (CUT, DENSE, 1.0),
    (CUT, TUNED, 1.05),
    (TRAINED, DENSE, 1.0),
    (TRAINED, TUNED, 1.05),
    (TRAINED, DENSE_TRAINED, 1.05),
)

# By client.
Rises = dict[int, float]


def rises(sensed: Sequence[Record], cells: Sequence[Record], row: str, column: str, budget: float) -> Rises:
    """Return how many nats more than with the dense model a token costs, for each client that was measured."""
    dense = {record["client"]: record["dense"] for record in sensed}
    chosen = [c for c in cells if (c["row"], c["column"], c["budget"]) == (row, column, budget)]
    return {c["client"]: c["nats"] - dense[c["client"]] for c in chosen}


def summary_tables(sensed: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return a table for each budget: perplexity relative to the dense model's, and evaluations; gaps where nothing was
    measured.
    """
    dense = np.exp([record["dense"] for record in sensed])
    lines = [
        f"{len(sensed)} speakers. Perplexity of the dense model on their later speeches: {_spread(dense)}.",
        "Behind a cell stands of how many speakers it is, where they are fewer.",
        "",
    ]
    for budget in BUDGETS:
        lines += [f"Budget {budget} of the blocks' weights: perplexity relative to dense, 95 % interval.", ""]
        lines += [
            "| row | " + " | ".join(COLUMNS) + " | evaluations |",
            "|---|" + "---|" * (len(COLUMNS) + 1),
        ]
        for row in ROWS:
            entries = [_ratio(rises(sensed, cells, row, column, budget), len(sensed)) for column in COLUMNS]
            own = [c for c in cells if (c["row"], c["column"], c["budget"]) == (row, COMPENSATED, budget)]
            entries.append(f"{np.mean([c['evaluations'] for c in own]):.0f}" if own else "")
            lines.append(f"| {row} | " + " | ".join(entries) + " |")
        lines.append("")
    return "\n".join(lines)


def checks(sensed: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return what the tables have to show: paired over clients, perplexity of the one over that of the other."""
    lines = ["Perplexity, paired over speakers; below 0 the first is better:", ""]

    def compare(text: str, one: Rises, other: Rises, *, wanted: bool) -> None:
        both = sorted(one.keys() & other.keys())
        if not both:
            return
        mean, half = mean_interval([one[client] - other[client] for client in both])
        low, middle, high = (f"{100.0 * np.expm1(nats):+.1f}" for nats in (mean - half, mean, mean + half))
        verdict = ("reached" if mean <= 0.0 else "NOT reached") if wanted else "no aim"
        lines.append(f"- {text}: {middle} % ({low} to {high}), {verdict}{_of_fewer(len(both), len(sensed))}")

    for budget in BUDGETS:
        for column in (FOLDED, COMPENSATED, DISTILLED):
            best = rises(sensed, cells, FLEET_AND_OWN, column, budget)
            for rival in (OWN, *PROFILES):
                other, wanted = rises(sensed, cells, rival, column, budget), rival == OWN or column != DISTILLED
                compare(f"{budget} {column}: {FLEET_AND_OWN} against {rival}", best, other, wanted=wanted)
        own = rises(sensed, cells, FLEET_AND_OWN, COMPENSATED, budget)
        for column, what in ((OTHERS_TEXT, "the same on another's"), (OTHERS_UNITS, "another's units, refitted on it")):
            others = rises(sensed, cells, FLEET_AND_OWN, column, budget)
            compare(f"{budget}: cut on one's own text against {what}", own, others, wanted=False)
        more = rises(sensed, cells, FLEET_AND_OWN, MORE_TEXT, budget)
        compare(f"{budget}: {MORE_TEXT} against 16", more, own, wanted=False)
        distilled = rises(sensed, cells, FLEET_AND_OWN, DISTILLED, budget)
        compare(f"{budget}: distilled against closed form", distilled, own, wanted=False)
    return "\n".join(lines) + "\n"


def whole_table(records: Sequence[Record]) -> str:
    """Return the table of `benchmarks.text.whole`, and whether the cut models, tuned, are good enough; empty without
    records of a dense model.
    """
    nats: dict[str, Rises] = {arm: {r["client"]: r["nats"] for r in records if r["arm"] == arm} for arm in ARMS}
    speakers = len(nats[DENSE])
    if not speakers:
        return ""
    lines = [
        f"{speakers} speakers. Tokens and blocks cut to {SHARE} of all weights, in shares that each device chooses, "
        f"blocks on {WINDOWS} windows. {TUNING_STEPS} batches of tuning, {TRAINING_STEPS} of `{RECOVERY}`.",
        "Perplexity for each token of the dense model, relative to the dense model's, 95 % interval.",
        "",
        "| model | weights | perplexity |",
        "|---|---|---|",
    ]
    for arm in (arm for arm in ARMS if nats[arm]):
        share = np.mean([r["share"] for r in records if r["arm"] == arm])
        lines.append(f"| {arm} | {share:.3f} | {_ratio(_differences(nats[arm], nats[DENSE]), speakers)} |")
    lines.append("")
    for arm, rival, most in _AIMS:
        rise = _differences(nats[arm], nats[rival])
        if rise:
            reached = np.mean(list(rise.values())) <= np.log(most)
            verdict = f"at most {most:.2f}: {'reached' if reached else 'NOT reached'}"
            lines.append(f"- {arm} against {rival}: {_ratio(rise, speakers)}, {verdict}")
    return "\n".join(lines) + "\n"


def _differences(one: Rises, other: Rises) -> Rises:
    return {client: one[client] - other[client] for client in sorted(one.keys() & other.keys())}


def _ratio(rise: Rises, speakers: int) -> str:
    if not rise:
        return ""
    mean, half = mean_interval([rise[client] for client in sorted(rise)])
    interval = f"{np.exp(mean):.3f} ({np.exp(mean - half):.3f} to {np.exp(mean + half):.3f})"
    return interval + _of_fewer(len(rise), speakers)


def _of_fewer(count: int, speakers: int) -> str:
    return f" [{count}]" if count < speakers else ""


def _spread(values: Array) -> str:
    return f"{values.min():.1f} to {values.max():.1f}, geometric mean {np.exp(np.log(values).mean()):.1f}"
