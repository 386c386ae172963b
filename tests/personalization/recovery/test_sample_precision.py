import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from personalization.recovery.precision import design_information, sample_precision


def design_of(seed, probes, atoms):
    return (np.random.default_rng(seed).random((probes, atoms)) < 0.2).astype(float)


seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, 30)


@given(seed=seeds, probes=sizes, atoms=sizes, unit=st.floats(1e-6, 1e6))
def test_precision_is_bounded_has_no_unit_and_is_zero_for_the_unseen(seed, probes, atoms, unit):
    design = design_of(seed, probes, atoms)
    measurements = np.random.default_rng(seed).exponential(size=probes)
    precision = sample_precision(design, measurements)
    assert np.all((precision >= 0) & (precision < 1))
    assert np.array_equal(precision == 0, ~design.any(axis=0))
    np.testing.assert_allclose(sample_precision(design, unit * measurements), precision, rtol=1e-6, atol=1e-12)


@given(seed=seeds, probes=sizes, atoms=sizes)
def test_a_further_probe_never_lowers_information_and_raises_that_of_its_atoms(seed, probes, atoms):
    design = design_of(seed, probes + 1, atoms)
    before, after = design_information(design[:-1]), design_information(design)
    assert np.all(after >= before - 1e-9)
    assert np.all((after > before)[design[-1] > 0])


@given(seed=seeds, probes=sizes, atoms=sizes)
def test_information_is_at_most_the_number_of_probes_and_equal_to_it_one_at_a_time(seed, probes, atoms):
    design = design_of(seed, probes, atoms)
    assert np.all(design_information(design) <= design.sum(axis=0) + 1e-9)
    single = np.eye(atoms)[np.random.default_rng(seed).integers(0, atoms, probes)]
    np.testing.assert_allclose(design_information(single), single.sum(axis=0), atol=1e-9)


def test_information_of_two_atoms_together_against_the_formula():
    # Schur complement by hand: 1 - 1 / (1 + 0.1).
    np.testing.assert_allclose(design_information(np.ones((1, 2))), 1.0 - 1.0 / 1.1)


def test_measurements_that_contradict_each_other_lower_precision():
    design = np.ones((6, 1))
    agreeing = sample_precision(design, np.full(6, 2.0))
    contradicting = sample_precision(design, np.array([1.0, 3.0, 1.0, 3.0, 1.0, 3.0]))
    assert agreeing[0] == 6 / 7
    assert contradicting[0] < 0.1


def test_measurements_of_zero_are_known_like_others():
    np.testing.assert_allclose(sample_precision(np.eye(3, 4), np.zeros(3)), [0.5, 0.5, 0.5, 0.0])
