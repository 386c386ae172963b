import numpy as np
import pytest

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.inference.noise import clipped, noise_deviation, released
from simulations.inference.views import View, observe
from simulations.noise import SeededEntropy
from strategies.privacy.accounting import rho_of
from strategies.privacy.mechanism import make_terms
from strategies.privacy.release import deviations
from strategies.privacy.settings import CLIP
from strategies.privacy.view import sum_under

LAYOUT = StatisticsLayout(layers=4, levels=2, groups=3)
PLAN = Plan(version=1, prior=None, dropped=np.zeros(3, dtype=bool), probes=2, budget=0.5)


def random_vectors(clients: int) -> np.ndarray:
    return np.random.default_rng(0).random((clients, 1, LAYOUT.size))


def test_clipping_shortens_what_is_too_long_and_nothing_else() -> None:
    vectors = np.array([[3.0, 4.0], [0.3, 0.4]])
    assert np.allclose(clipped(vectors, 1.0), [[0.6, 0.8], [0.3, 0.4]])


def test_what_is_attacked_has_the_sum_and_the_noise_of_a_real_round() -> None:
    cohort, epsilon, delta = 20, 1.0, 1e-5
    vectors = random_vectors(cohort)
    seen = released(vectors, PLAN, LAYOUT)
    assert seen.shape == (cohort, 1, LAYOUT.atoms)
    terms = make_terms("distributed", clip=CLIP, rho=rho_of(epsilon, delta))
    rows = [deviations(vector, PLAN, LAYOUT) for vector in vectors[:, 0]]
    rounds = [sum_under(terms, rows, entropy=SeededEntropy(str(turn))) for turn in range(200)]
    noise = noise_deviation(epsilon, delta, cohort=cohort)
    assert noise == pytest.approx(np.sqrt(rounds[0].variance))
    deviation = np.stack([one.total for one in rounds]) - seen[:, 0].sum(0)
    assert deviation.std() == pytest.approx(noise, rel=0.06)
    assert abs(deviation.mean()) < 4.0 * noise / np.sqrt(deviation.size)


def test_noise_on_a_sum_is_divided_among_its_cohort() -> None:
    view = View(name="view", cohort=10, observations=(0,), noise=5.0)
    seen = observe(np.zeros((20, 1, 400)), view, trials=5, rng=np.random.default_rng(0))
    assert seen.seen.std() == pytest.approx(0.5, rel=0.02)
