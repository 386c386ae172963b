import numpy as np
import pytest
from test_allocation import make_layers

from personalization.sensing.prior import CERTAINTY, LOOK, Prior
from personalization.sensing.prior_completion import completed_prior, prior_of_errors
from personalization.sensing.probes import ProbeSamples
from personalization.transformer.layers import LayerKind

LEVELS = 2
BLOCKS = 30


def blocks():
    kinds = [LayerKind.ATTENTION, LayerKind.MLP] * BLOCKS
    return make_layers([3] * 2 * BLOCKS, [10] * 2 * BLOCKS, kinds)


def own_errors(seed):
    """Local errors that differ by layer and level."""
    rng = np.random.default_rng(seed)
    layer = rng.normal(-4.0, 0.6, (2 * BLOCKS, 1))
    return np.exp(np.concatenate([layer, layer + rng.normal(0.9, 0.2, (2 * BLOCKS, 1))], axis=1))


def truth(seed, errors):
    """Sensitivities whose gains over `errors` differ by kind, slowly with depth, by layer and by atom."""
    rng = np.random.default_rng(seed + 1000)
    depth = np.repeat(0.5 * np.sin(np.arange(BLOCKS) / 5.0), 2)
    kind = np.tile([np.log(0.3), np.log(0.9)], BLOCKS)
    layer = rng.normal(0.0, 0.4, 2 * BLOCKS)
    atom = rng.normal(0.0, 0.1, (2 * BLOCKS, 2))
    return (errors * np.exp((kind + depth + layer)[:, None] + atom)).ravel()


def partly_known(sensitivity, share, seed):
    known = np.random.default_rng(seed).random(len(sensitivity)) < share
    return Prior(np.where(known, sensitivity, 0.0), np.where(known, 0.5, 0.0)), known


def case(seed, share):
    errors = own_errors(seed)
    sensitivity = truth(seed, errors)
    prior, known = partly_known(sensitivity, share, seed)
    return errors, sensitivity, prior, known


def off_by(found, sensitivity, atoms):
    """Root mean square of log ratios, once what all have in common is out."""
    logs = np.log(found.sensitivity / sensitivity)[atoms]
    return np.sqrt((logs**2).mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_unknown_atoms_come_much_nearer_to_the_truth_than_the_mean_of_the_known_ones(seed, share):
    errors, sensitivity, prior, known = case(seed, share)
    found = completed_prior(prior, blocks(), errors)
    of_the_mean = np.log(sensitivity[known].mean() / sensitivity)[~known]
    assert off_by(found, sensitivity, ~known) < (0.9 if share < 0.1 else 0.6) * np.sqrt((of_the_mean**2).mean())


@pytest.mark.parametrize("seed", range(4))
def test_own_errors_say_more_than_what_layers_have_in_common(seed):
    errors, sensitivity, prior, known = case(seed, 0.3)
    with_errors = completed_prior(prior, blocks(), errors)
    without = completed_prior(prior, blocks(), np.tile(np.exp(np.log(errors).mean(0)), (2 * BLOCKS, 1)))
    assert off_by(with_errors, sensitivity, ~known) < 0.85 * off_by(without, sensitivity, ~known)


def test_a_layer_known_at_one_level_gets_the_other_from_its_own_errors():
    errors = np.tile([0.01, 0.03], (2 * BLOCKS, 1))
    errors[[10, 11], 1] = 0.06
    sensitivity = errors.ravel().copy()
    prior = Prior(sensitivity, np.full(len(sensitivity), 0.5))
    prior.precision[[21, 22]] = 0.0
    prior.sensitivity[[21, 22]] = 0.0
    found = completed_prior(prior, blocks(), errors)
    assert found.sensitivity[21] == pytest.approx(0.06, rel=0.05)
    assert found.sensitivity[22] == pytest.approx(0.01, rel=0.05)


def test_few_looks_do_not_persuade_anybody_that_levels_cost_alike():
    errors = np.tile([0.01, 0.03], (2 * BLOCKS, 1))
    prior = Prior(np.zeros(errors.size), np.zeros(errors.size))
    prior.sensitivity[[0, 2, 21, 23]] = [0.03, 0.03, 0.03, 0.03]
    prior.precision[[0, 2, 21, 23]] = 0.5
    found = completed_prior(prior, blocks(), errors).sensitivity.reshape(-1, LEVELS)
    assert (found[:, 1] > 2.0 * found[:, 0]).all()


def test_atoms_that_many_have_measured_stay_nearly_as_they_are():
    errors, _, prior, known = case(0, 0.5)
    often = np.flatnonzero(known)[1:]
    prior.precision[often] = 50.0
    found = completed_prior(prior, blocks(), errors)
    ratios = found.sensitivity[often] / np.maximum.accumulate(prior.sensitivity.reshape(-1, 2), 1).ravel()[often]
    assert np.abs(np.log(ratios)).mean() < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_atoms_that_one_has_measured_come_nearer_to_the_truth(seed):
    errors = own_errors(seed)
    sensitivity = truth(seed, errors)
    noise = np.exp(np.random.default_rng(seed + 100).normal(0.0, 0.3, len(sensitivity)))
    prior, known = partly_known(sensitivity * noise, 0.7, seed)
    found = completed_prior(prior, blocks(), errors)
    assert off_by(found, sensitivity, known) < 0.93 * np.sqrt((np.log(noise[known]) ** 2).mean())


def test_what_is_filled_in_pulls_less_than_what_is_known():
    errors, _, prior, known = case(0, 0.5)
    found = completed_prior(prior, blocks(), errors)
    assert 0.0 < found.precision[~known].max() <= 0.05 * prior.precision[known].mean()


def test_a_higher_level_never_costs_less_than_a_lower_one():
    errors = own_errors(0)
    sensitivity = truth(0, errors)
    sensitivity[20] = 5.0
    prior = Prior(sensitivity, np.full(len(sensitivity), 0.5))
    prior.precision[21] = 0.0
    found = completed_prior(prior, blocks(), errors).sensitivity.reshape(-1, LEVELS)
    assert (np.diff(found, axis=1) >= 0.0).all()
    assert found[10, 1] > 5.0 * np.median(found[::2, 1])


def test_a_known_zero_or_an_error_of_zero_does_not_drag_everything_down():
    errors, sensitivity, prior, known = case(0, 0.5)
    prior.sensitivity[np.flatnonzero(known)[0]] = 0.0
    errors[0] = 0.0
    found = completed_prior(prior, blocks(), errors)
    assert np.isfinite(found.sensitivity).all()
    assert np.median(found.sensitivity[~known]) > 0.3 * np.median(sensitivity)


def test_a_prior_that_is_certain_comes_back():
    errors, _, prior, _ = case(0, 1.0)
    certain = Prior(prior.sensitivity, np.full(errors.size, CERTAINTY))
    assert completed_prior(certain, blocks(), errors) is certain


@pytest.mark.parametrize("seed", range(4))
def test_where_every_atom_was_looked_at_once_errors_and_neighbours_take_noise_out(seed):
    errors = own_errors(seed)
    sensitivity = truth(seed, errors)
    noise = np.random.default_rng(seed).normal(0.0, 0.3, errors.size)
    once = Prior(np.exp(np.log(sensitivity) + noise), np.full(errors.size, LOOK))
    often = Prior(once.sensitivity, np.full(errors.size, 3 * LOOK))
    everything = np.ones(errors.size, dtype=bool)
    found, believed = (completed_prior(prior, blocks(), errors) for prior in (once, often))
    assert off_by(found, sensitivity, everything) < 0.8 * off_by(once, sensitivity, everything)
    # Where the same was measured three times it is less likely to be noise.
    assert off_by(believed, once.sensitivity, everything) < 0.7 * off_by(found, once.sensitivity, everything)


def test_where_all_that_is_known_is_zero_the_prior_comes_back():
    prior = Prior(np.zeros(2 * 2 * BLOCKS), np.tile([0.5, 0.0, 0.0, 0.0], BLOCKS))
    assert completed_prior(prior, blocks(), own_errors(0)) is prior


def test_it_does_not_depend_on_the_units_of_sensitivities_and_errors():
    errors, _, prior, _ = case(0, 0.5)
    found = completed_prior(prior, blocks(), errors)
    larger = completed_prior(Prior(10.0 * prior.sensitivity, prior.precision), blocks(), 7.0 * errors)
    assert larger.sensitivity == pytest.approx(10.0 * found.sensitivity)


def test_without_a_fleet_errors_are_expected_on_the_scale_of_what_was_measured():
    errors = own_errors(0)
    design = np.zeros((3, errors.size))
    design[[0, 1, 2], [4, 9, 50]] = 1.0
    samples = ProbeSamples(design, 20.0 * errors.ravel()[[4, 9, 50]])
    found = prior_of_errors(errors, samples)
    assert found.sensitivity == pytest.approx(np.maximum.accumulate(20.0 * errors, axis=1).ravel())
    assert (found.precision > 0.0).all()


@pytest.mark.parametrize("measured", [0, 3])
def test_without_anything_measured_above_zero_nothing_is_expected(measured):
    samples = ProbeSamples(np.eye(2 * 2 * BLOCKS)[:measured], np.zeros(measured))
    assert prior_of_errors(own_errors(0), samples) is None
