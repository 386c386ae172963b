"""Cohorts of valid statistics vectors, and the specs that every property is checked for."""

import numpy as np
from hypothesis import strategies as st

from personalization.wire.statistics import StatisticsLayout
from strategies.registry import PRE_AGGREGATIONS, SERVER_OPTIMIZERS, STRATEGIES

LAYOUT = StatisticsLayout(layers=3, levels=2, groups=4)
PRECISION, SHARES = LAYOUT.field("precision"), LAYOUT.field("weighted_sensitivity")
FEWEST = 7

COMPOSITIONS = [
    *(f"{before}+{base}" for before in PRE_AGGREGATIONS for base in STRATEGIES),
    *(f"{base}+{after}" for base in STRATEGIES if base != "clustered" for after in SERVER_OPTIMIZERS),
    "nnm:attackers=1+trimmed-mean:attackers=1+adam:rate=0.3",
    "bucketing:size=3:seed=5+geometric-median+momentum",
    "clustered:groups=3:base=median",
]
SPECS = [*STRATEGIES, *COMPOSITIONS]


def make_cohort(rng: np.random.Generator, clients: int, *, measured: float = 0.6, steps: int = 0) -> np.ndarray:
    """Valid vectors [clients, size]; each atom measured with odds `measured`; steps > 0 rounds everything, for ties."""
    rows = rng.random((clients, LAYOUT.size))
    if steps:
        rows = np.round(rows * steps) / steps
    rows[:, PRECISION] *= rng.random((clients, LAYOUT.atoms)) < measured
    rows[:, SHARES] *= rows[:, PRECISION]
    return rows


@st.composite
def cohorts(draw, *, fewest: int = FEWEST, most: int = 14, measured: float | None = None):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    odds = draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])) if measured is None else measured
    return make_cohort(rng, draw(st.integers(fewest, most)), measured=odds, steps=draw(st.sampled_from([0, 1, 4])))


def meaning(vector: np.ndarray) -> np.ndarray:
    """The vector with p * s replaced by s, where p > 0."""
    found = np.array(vector)
    precision = found[..., PRECISION]
    found[..., SHARES] = np.divide(found[..., SHARES], precision, out=np.zeros_like(precision), where=precision > 0)
    return found
