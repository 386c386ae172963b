import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from simulations.inference.noise import clipped, gaussian_noise
from simulations.inference.reconstruction import structural_similarity
from simulations.inference.regression import fit_ridge
from simulations.inference.scores import Trials, auc, auc_interval, mean_interval
from simulations.inference.views import View, observe


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([float(s) for s, _ in pairs]), np.array([t for _, t in pairs])
    if truth.all() or not truth.any():
        assert np.isnan(auc(scores, truth))
    else:
        assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_trials_of_one_client_count_as_one_draw() -> None:
    rng = np.random.default_rng(0)
    scores, truth, client = rng.standard_normal(40), np.arange(40) % 2 == 0, np.repeat(np.arange(10), 4)
    area, low, high = auc_interval(Trials(scores, truth, client))
    again = auc_interval(Trials(np.tile(scores, 20), np.tile(truth, 20), np.tile(client, 20)))
    assert again == pytest.approx((area, low, high))
    assert low < area < high


def test_the_interval_of_a_mean_holds_it() -> None:
    mean, low, high = mean_interval(np.arange(50.0))
    assert low < mean == 24.5 < high


def test_ridge_is_that_of_scikit_learn_on_standardized_columns() -> None:
    rng = np.random.default_rng(0)
    rows, outputs = rng.standard_normal((50, 4)) * [1, 10, 0.1, 3], rng.standard_normal((50, 2))
    found = fit_ridge(rows, outputs, client=np.arange(50), strengths=(0.3,))
    reference = Ridge(alpha=0.3 * 50).fit((rows - rows.mean(0)) / rows.std(0), outputs)
    assert np.allclose(found(rows), reference.predict((rows - rows.mean(0)) / rows.std(0)))


def test_noise_in_the_moments_stands_for_noise_on_the_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 3))
    outputs = rows @ rng.standard_normal((3, 1))
    noisy = rows + 2.0 * rng.standard_normal(rows.shape)
    exact = fit_ridge(rows, outputs, client=np.arange(len(rows)), noise=2.0, strengths=(1e-9,))
    drawn = fit_ridge(noisy, outputs, client=np.arange(len(rows)), strengths=(1e-9,))
    assert np.allclose(exact.weights, drawn.weights, atol=0.02)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
def test_gaussian_noise_has_the_delta_that_was_asked_for(epsilon: float) -> None:
    deviation = gaussian_noise(epsilon, 1e-5)
    # Delta is the largest excess of one density over e^epsilon times the other: here by summing it up.
    grid = np.linspace(-12 * deviation, 12 * deviation + 1, 400_001)
    with_client, without = (np.exp(-np.square((grid - m) / deviation) / 2) for m in (1.0, 0.0))
    excess = np.maximum(with_client - np.exp(epsilon) * without, 0.0).sum() * (grid[1] - grid[0])
    assert excess / (deviation * np.sqrt(2 * np.pi)) == pytest.approx(1e-5, rel=1e-3)


def test_clipping_shortens_what_is_too_long_and_nothing_else() -> None:
    vectors = np.array([[3.0, 4.0], [0.3, 0.4]])
    assert np.allclose(clipped(vectors, 1.0), [[0.6, 0.8], [0.3, 0.4]])


def test_an_observation_is_the_mean_of_its_cohort() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.random((12, 3, 5))
    seen = observe(vectors, View(name="view", cohort=4, observations=(0, 2)), trials=2, rng=rng)
    for row, value in enumerate(seen.seen):
        cohorts = [vectors[cohort[row], which].mean(0) for cohort, which in zip(seen.cohorts, (0, 2), strict=True)]
        assert np.allclose(value, np.mean(cohorts, axis=0))
        assert all(cohort[row, 0] == seen.client[row] for cohort in seen.cohorts)
        assert all(seen.client[row] not in cohort[row, 1:] for cohort in seen.cohorts)


def test_noise_on_a_sum_is_divided_among_its_cohort() -> None:
    view = View(name="view", cohort=10, observations=(0,), noise=5.0)
    seen = observe(np.zeros((20, 1, 400)), view, trials=5, rng=np.random.default_rng(0))
    assert seen.seen.std() == pytest.approx(0.5, rel=0.02)


def test_similarity_is_one_for_the_same_image_and_less_for_others() -> None:
    image = np.random.default_rng(0).random((14, 14))
    same, inverted = structural_similarity(image, np.stack([image, 1.0 - image]))
    assert same == pytest.approx(1.0)
    assert inverted < 0.0
