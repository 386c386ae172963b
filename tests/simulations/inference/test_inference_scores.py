import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from simulations.inference.reconstruction import structural_similarity
from simulations.inference.regression import fit_ridge
from simulations.inference.scores import Trials, auc, auc_interval, mean_interval
from simulations.inference.views import View, observe


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


def test_an_observation_is_the_mean_of_its_cohort() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.random((12, 3, 5))
    seen = observe(vectors, View(name="view", cohort=4, observations=(0, 2)), trials=2, rng=rng)
    for row, value in enumerate(seen.seen):
        cohorts = [vectors[cohort[row], which].mean(0) for cohort, which in zip(seen.cohorts, (0, 2), strict=True)]
        assert np.allclose(value, np.mean(cohorts, axis=0))
        assert all(cohort[row, 0] == seen.client[row] for cohort in seen.cohorts)
        assert all(seen.client[row] not in cohort[row, 1:] for cohort in seen.cohorts)


def test_similarity_is_one_for_the_same_image_and_less_for_others() -> None:
    image = np.random.default_rng(0).random((14, 14))
    same, inverted = structural_similarity(image, np.stack([image, 1.0 - image]))
    assert same == pytest.approx(1.0)
    assert inverted < 0.0
