import numpy as np
import pytest

from simulations.inference.linkage import ATTACKERS, LinkageView, draw_pairs, linkage_scores, linkage_trials
from simulations.inference.scores import auc
from simulations.inference.views import View


def areas(*, own: float, cohort: int, summed: bool) -> dict[str, float]:
    """Clients' vectors have something of their own, `own` times as strong as what each round adds."""
    rng = np.random.default_rng(0)
    fleets = [
        own * rng.standard_normal((count, 1, 12)) + rng.standard_normal((count, 3, 12)) + 5.0 for count in (120, 60)
    ]
    view = LinkageView(later=View(name="view", cohort=cohort, observations=(1,)), earlier=0, summed=summed)
    pairs = draw_pairs(fleets[1], view, trials=4, rng=rng)
    scores = linkage_scores(fleets[0], pairs, view, trials=4, rng=rng)
    found = {name: linkage_trials(values, pairs) for name, values in scores.items()}
    return {name: auc(trials.scores, trials.truth) for name, trials in found.items()}


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_client_that_stays_the_same_is_recognized(attacker: str) -> None:
    assert areas(own=3.0, cohort=1, summed=False)[attacker] > 0.95
    assert areas(own=3.0, cohort=5, summed=False)[attacker] > 0.7


def test_two_sums_tell_less_than_a_known_vector_and_a_sum() -> None:
    known, sums = (areas(own=3.0, cohort=5, summed=summed)["likelihood ratio"] for summed in (False, True))
    assert known > sums + 0.1
    assert sums > 0.55


@pytest.mark.parametrize("cohort", [1, 5])
def test_clients_with_nothing_of_their_own_are_not(cohort: int) -> None:
    assert all(0.42 < area < 0.58 for area in areas(own=0.0, cohort=cohort, summed=False).values())


def test_a_pair_shares_the_client_or_nobody() -> None:
    vectors = np.eye(20)[:, None, :].repeat(3, axis=1)
    view = LinkageView(later=View(name="view", cohort=4, observations=(1,)), earlier=0, summed=True)
    pairs = draw_pairs(vectors, view, trials=3, rng=np.random.default_rng(0))
    both = (pairs.reference > 0) & (pairs.seen > 0)
    assert (both.sum(1) == pairs.truth).all()
    assert (both[pairs.truth].argmax(1) == pairs.client[pairs.truth]).all()
