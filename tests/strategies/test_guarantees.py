"""With f attackers that know everything and send anything valid, each atom measured by all."""

import numpy as np
import pytest
from cohorts import LAYOUT, SHARES, make_cohort, meaning
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.errors import UserError
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.completion import complete
from strategies.geometric_median import GeometricMedian
from strategies.krum import Krum
from strategies.majority_vote import MajorityVote
from strategies.registry import make_strategy

SOME = settings(max_examples=40)
OPINIONS = slice(SHARES.start, None)


@st.composite
def attacked(draw, *, needs):
    """Honest rows and all rows [clients, size], and f, with n >= needs(f); attackers collude, exaggerate or mimic."""
    attackers = draw(st.integers(0, 3))
    clients = needs(attackers) + draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    honest = make_cohort(rng, clients - attackers, measured=2.0, steps=draw(st.sampled_from([0, 0, 2])))
    spread = draw(st.sampled_from([0.05, 1.0]))
    honest = 0.5 * (1 - spread) + spread * honest
    # The guarantees are for atoms that all have measured, and coarse steps round some precisions to none.
    honest[:, : LAYOUT.atoms] = np.where(honest[:, : LAYOUT.atoms] == 0.0, 0.5, honest[:, : LAYOUT.atoms])
    honest[:, SHARES] = np.minimum(honest[:, SHARES], honest[:, : LAYOUT.atoms])
    kind = draw(st.sampled_from(["zeros", "ones", "random", "beside"]))
    forged = {
        "zeros": np.full((attackers, LAYOUT.size), 1e-3),
        "ones": np.ones((attackers, LAYOUT.size)),
        "random": make_cohort(rng, attackers, measured=2.0) * 0.999 + 1e-3,
        "beside": np.clip(honest[:1] + 0.1 * rng.standard_normal((attackers, LAYOUT.size)), 1e-3, 1.0),
    }[kind]
    forged[:, SHARES] = np.minimum(forged[:, SHARES], forged[:, : LAYOUT.atoms])
    return honest, np.concatenate([honest, forged])[rng.permutation(clients)], attackers


def outside(found: np.ndarray, honest: np.ndarray) -> float:
    """How far the furthest coordinate lies outside of the honest range."""
    sent, result = meaning(honest)[:, OPINIONS], meaning(found)[OPINIONS]
    return float(np.maximum(sent.min(0) - result, result - sent.max(0)).max())


@given(attacked(needs=lambda f: 2 * f + 1))
@SOME
def test_median_and_trimmed_mean_stay_in_the_honest_range(case):
    honest, rows, attackers = case
    for spec in ("median", f"trimmed-mean:attackers={attackers}"):
        assert outside(make_strategy(spec)(list(rows), LAYOUT), honest) <= 1e-12


@given(attacked(needs=lambda f: 2 * f + 3))
@SOME
def test_what_krum_picks_lies_near_an_honest_client(case):
    honest, rows, attackers = case
    found = meaning(Krum(attackers=attackers)(list(rows), LAYOUT))[OPINIONS]
    sent = meaning(honest)[:, OPINIONS]
    widest = max(np.linalg.norm(a - b) for a in sent for b in sent)
    # An honest score is at most (n - f - 2) widest^2, and whoever scores less has an honest client among its nearest.
    bound = np.sqrt(len(rows) - attackers - 2) * widest
    assert np.linalg.norm(sent - found, axis=1).min() <= bound + 1e-9


@given(attacked(needs=lambda f: 4 * f + 3))
@SOME
def test_bulyan_stays_within_the_honest_width_of_an_honest_value(case):
    honest, rows, attackers = case
    found = meaning(Bulyan(attackers=attackers)(list(rows), LAYOUT))[OPINIONS]
    sent = meaning(honest)[:, OPINIONS]
    width = np.ptp(sent, axis=0)
    assert (found >= sent.min(0) - width - 1e-12).all()
    assert (found <= sent.max(0) + width + 1e-12).all()


@given(attacked(needs=lambda f: 2 * f + 1))
@SOME
def test_the_geometric_median_stays_near_the_honest(case):
    honest, rows, attackers = case
    values = complete(rows, LAYOUT).values[:, OPINIONS]
    sent = meaning(honest)[:, OPINIONS]
    found = GeometricMedian().reduce(values, values)
    centre = sent.mean(0)
    ratio = 2 * len(honest) / (len(honest) - attackers)
    assert np.linalg.norm(found - centre) <= ratio * np.linalg.norm(sent - centre, axis=1).max() + 1e-3


@given(attacked(needs=lambda f: 2 * f + 1))
@SOME
def test_nobody_moves_centered_clipping_by_more_than_its_share_of_the_radius(case):
    _, rows, _ = case
    values = complete(rows, LAYOUT).values
    median = np.median(values, axis=0)
    radius = np.median(np.linalg.norm(values - median, axis=1))
    found = CenteredClipping(iterations=1).reduce(values, values)
    assert np.linalg.norm(found - median) <= radius + 1e-12


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 5))
@SOME
def test_the_vote_of_a_unanimous_majority_stands(seed, honest, attackers):
    rows = make_cohort(np.random.default_rng(seed), honest + attackers)
    kept = LAYOUT.field("group_kept")
    rows[:honest, kept] = [0.0, 1.0, 0.0, 1.0]
    rows[honest:, kept] = [1.0, 0.0, 1.0, 0.0]
    found = MajorityVote()(list(rows), LAYOUT)[kept]
    if honest > attackers:
        assert np.array_equal(found, [0, 1, 0, 1])
    elif honest < attackers:
        assert np.array_equal(found, [1, 0, 1, 0])
    else:
        assert not found.any(), "a tie keeps nothing"


@pytest.mark.parametrize("spec", ["precision-weighted-mean", "mean"])
def test_a_mean_is_moved_by_one_attacker_and_a_median_is_not(spec):
    fleet = np.full((9, LAYOUT.size), 0.2)
    fleet[:, SHARES] = 0.04
    fleet[0] = 1.0
    assert outside(make_strategy(spec)(list(fleet), LAYOUT), fleet[1:]) > 0.05
    assert outside(make_strategy("median")(list(fleet), LAYOUT), fleet[1:]) <= 1e-12


@pytest.mark.parametrize(
    ("spec", "fewest"),
    [
        ("krum:attackers=2", 7),
        ("multi-krum:attackers=3", 9),
        ("bulyan:attackers=2", 11),
        ("trimmed-mean:attackers=2", 5),
        ("nnm:attackers=2+median", 5),
        ("bucketing:size=2+krum:attackers=1", 9),
        ("clustered:base=krum", 3),
        ("median", 1),
    ],
)
def test_a_cohort_smaller_than_the_guarantee_needs_is_refused(spec, fewest):
    strategy = make_strategy(spec)
    fleet = list(make_cohort(np.random.default_rng(0), fewest))
    strategy(fleet, LAYOUT)
    strategy.check_cohort(fewest)
    if fewest > 1:
        with pytest.raises(UserError, match=r"needs [0-9]+ clients"):
            strategy(fleet[1:], LAYOUT)


@pytest.mark.parametrize("spec", ["krum", "multi-krum", "bulyan", "trimmed-mean", "nnm+krum"])
def test_every_cohort_of_three_or_more_bears_the_default_share(spec):
    strategy = make_strategy(spec)
    for clients in range(3, 200):
        strategy.check_cohort(clients)
