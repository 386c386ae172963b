import numpy as np
import pytest
from test_allocation import make_layers

from personalization.layers import LayerKind
from personalization.prior import Prior
from personalization.prior_completion import completed_prior

LEVELS = 2
BLOCKS = 30
SHARES = np.tile([0.5, 0.8], (2 * BLOCKS, 1))


def blocks():
    kinds = [LayerKind.ATTENTION, LayerKind.MLP] * BLOCKS
    return make_layers([3] * 2 * BLOCKS, [10] * 2 * BLOCKS, kinds)


def truth(seed):
    """Sensitivities that differ by kind, level, slowly with depth, by layer and by atom."""
    rng = np.random.default_rng(seed)
    depth = np.repeat(0.5 * np.sin(np.arange(BLOCKS) / 5.0), 2)
    kind = np.tile([np.log(0.005), np.log(0.03)], BLOCKS)
    layer = rng.normal(0.0, 0.4, 2 * BLOCKS)
    level = np.stack([np.zeros(2 * BLOCKS), np.tile([1.1, 0.7], BLOCKS)], axis=1)
    return np.exp((kind + depth + layer)[:, None] + level + rng.normal(0.0, 0.1, (2 * BLOCKS, 2))).ravel()


def partly_known(sensitivity, share, seed):
    known = np.random.default_rng(seed).random(len(sensitivity)) < share
    return Prior(np.where(known, sensitivity, 0.0), np.where(known, 0.5, 0.0)), known


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_unknown_atoms_come_much_nearer_to_the_truth_than_the_mean_of_the_known_ones(seed, share):
    sensitivity = truth(seed)
    prior, known = partly_known(sensitivity, share, seed)
    found = completed_prior(prior, blocks(), SHARES)
    errors = np.abs(np.log(found.sensitivity / sensitivity))[~known]
    of_the_mean = np.abs(np.log(sensitivity[known].mean() / sensitivity))[~known]
    assert np.sqrt((errors**2).mean()) < 0.6 * np.sqrt((of_the_mean**2).mean())


def exponents(sensitivity):
    table = np.log(sensitivity.reshape(-1, LEVELS))
    return (table[:, 1] - table[:, 0]) / np.log(0.8 / 0.5)


@pytest.mark.parametrize("higher", [0.5, 1.0, 4.0])
def test_four_looks_do_not_persuade_anybody_that_layers_are_straight_lines_or_free_up_to_half(higher):
    prior = Prior(np.zeros(len(truth(0))), np.zeros(len(truth(0))))
    prior.sensitivity[[0, 2, 21, 23]] = [0.03, 0.03, 0.03 * higher, 0.03 * higher]
    prior.precision[[0, 2, 21, 23]] = 0.5
    found = exponents(completed_prior(prior, blocks(), SHARES).sensitivity)
    assert (found > 1.4).all()
    assert (found < 2.9).all()


def test_what_many_looks_say_of_an_exponent_is_believed():
    prior, known = partly_known(np.tile([0.01, 0.01 * 1.6**3.5], 2 * BLOCKS), 0.9, 0)
    prior.precision[np.flatnonzero(known)[1:]] = 50.0
    found = exponents(completed_prior(prior, blocks(), SHARES).sensitivity)
    assert np.median(found) == pytest.approx(3.5, abs=0.1)


def test_a_layer_known_at_one_level_gets_the_other_from_the_ratio_of_its_kind():
    sensitivity = np.tile([0.01, 0.03, 0.1, 0.2], BLOCKS)
    prior = Prior(sensitivity.copy(), np.full(len(sensitivity), 0.5))
    prior.precision[[21, 22]] = 0.0
    prior.sensitivity[[21, 22]] = 0.0
    found = completed_prior(prior, blocks(), SHARES)
    assert found.sensitivity[21] == pytest.approx(0.03, rel=0.05)
    assert found.sensitivity[22] == pytest.approx(0.1, rel=0.05)


def test_atoms_that_many_have_measured_stay_nearly_as_they_are():
    prior, known = partly_known(truth(0), 0.5, 0)
    prior.precision[np.flatnonzero(known)[1:]] = 50.0
    found = completed_prior(prior, blocks(), SHARES)
    often = np.flatnonzero(known)[1:]
    ratios = found.sensitivity[often] / np.maximum.accumulate(prior.sensitivity.reshape(-1, 2), 1).ravel()[often]
    assert np.abs(np.log(ratios)).mean() < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_atoms_that_one_has_measured_come_nearer_to_the_truth(seed):
    sensitivity = truth(seed)
    noise = np.exp(np.random.default_rng(seed + 100).normal(0.0, 0.3, len(sensitivity)))
    prior, known = partly_known(sensitivity * noise, 0.7, seed)
    found = completed_prior(prior, blocks(), SHARES)
    errors = np.log(found.sensitivity / sensitivity)[known]
    assert np.sqrt((errors**2).mean()) < 0.93 * np.sqrt((np.log(noise[known]) ** 2).mean())


def test_what_is_filled_in_pulls_less_than_what_is_known():
    prior, known = partly_known(truth(0), 0.5, 0)
    found = completed_prior(prior, blocks(), SHARES)
    assert 0.0 < found.precision[~known].max() <= 0.05 * prior.precision[known].mean()


def test_a_higher_level_never_costs_less_than_a_lower_one():
    sensitivity = truth(0)
    sensitivity[20] = 5.0
    prior = Prior(sensitivity, np.full(len(sensitivity), 0.5))
    prior.precision[21] = 0.0
    found = completed_prior(prior, blocks(), SHARES).sensitivity.reshape(-1, LEVELS)
    assert (np.diff(found, axis=1) >= 0.0).all()
    assert found[10, 1] > 5.0 * np.median(found[::2, 1])


def test_a_known_zero_does_not_drag_everything_down():
    prior, known = partly_known(truth(0), 0.5, 0)
    first = np.flatnonzero(known)[0]
    prior.sensitivity[first] = 0.0
    found = completed_prior(prior, blocks(), SHARES)
    assert np.isfinite(found.sensitivity).all()
    assert np.median(found.sensitivity[~known]) > 1e-3


@pytest.mark.parametrize("known", [0.0, 1.0])
def test_where_nothing_or_everything_is_known_the_prior_comes_back(known):
    prior, _ = partly_known(truth(0), known, 0)
    assert completed_prior(prior, blocks(), SHARES) is prior


def test_without_a_prior_there_is_none():
    assert completed_prior(None, blocks(), SHARES) is None


def test_where_all_that_is_known_is_zero_the_prior_comes_back():
    prior = Prior(np.zeros(len(truth(0))), np.tile([0.5, 0.0, 0.0, 0.0], BLOCKS))
    assert completed_prior(prior, blocks(), SHARES) is prior


def test_it_does_not_depend_on_the_unit_of_sensitivity():
    prior, _ = partly_known(truth(0), 0.5, 0)
    found = completed_prior(prior, blocks(), SHARES)
    larger = completed_prior(Prior(10.0 * prior.sensitivity, prior.precision), blocks(), SHARES)
    assert larger.sensitivity == pytest.approx(10.0 * found.sensitivity)
