import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.errors import UserError
from personalization.recovery import recover, shrink_unseen
from personalization.sensing.prior import Prior

SOLVERS = ["deviation", "lasso", "omp"]


def probes_of(rng, probes, atoms, per_probe):
    return (
        np.stack([np.isin(np.arange(atoms), rng.choice(atoms, per_probe, replace=False)) for _ in range(probes)]) * 1.0
    )


def device(seed, *, probes=6, atoms=24, per_probe=3, prior_error=0.2, noise=0.05):
    """Log-normal sensitivities, a fleet prior that is a little wrong everywhere, noisy measurements."""
    rng = np.random.default_rng(seed)
    truth = 0.05 * rng.lognormal(0.0, 1.2, atoms)
    design = probes_of(rng, probes, atoms, per_probe)
    prior = Prior(truth * rng.lognormal(0.0, prior_error, atoms), rng.uniform(0.5, 0.9, atoms))
    return design, design @ truth * rng.lognormal(0.0, noise, probes), prior, truth


@pytest.mark.parametrize("solver", ["lasso", "omp"])
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_sparse_signal_is_found_with_fewer_probes_than_atoms(solver, seed):
    rng = np.random.default_rng(seed)
    planted = np.zeros(60)
    planted[rng.choice(60, 4, replace=False)] = rng.uniform(1.0, 2.0, 4)
    design = probes_of(rng, 40, 60, 12)
    result = recover(design, design @ planted + 0.02 * rng.normal(size=40), solver=solver)
    assert set(np.argsort(result.sensitivity)[-4:]) == set(np.flatnonzero(planted))
    assert np.linalg.norm(result.sensitivity - planted) < 0.1 * np.linalg.norm(planted)
    assert result.r2 is not None
    assert result.r2 > 0.9


@pytest.mark.parametrize("per_probe", [1, 3])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_good_prior_beats_lasso_and_is_itself_improved(per_probe, penalty):
    errors = {"prior": [], "deviation": [], "lasso": []}
    for seed in range(20):
        design, measurements, prior, truth = device(seed, per_probe=per_probe)
        deviation = recover(design, measurements, prior=prior, penalty=penalty)
        lasso = recover(design, measurements, solver="lasso")
        for name, x in (
            ("prior", prior.sensitivity),
            ("deviation", deviation.sensitivity),
            ("lasso", lasso.sensitivity),
        ):
            errors[name].append(np.linalg.norm(x - truth) / np.linalg.norm(truth))
    assert np.mean(errors["deviation"]) < 0.5 * np.mean(errors["lasso"])
    assert np.mean(errors["deviation"]) < np.mean(errors["prior"])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    solver=st.sampled_from(SOLVERS),
    probes=st.integers(1, 20),
    per_probe=st.integers(1, 4),
    unit=st.sampled_from([1e-6, 1e-2, 1e3]),
    with_prior=st.booleans(),
)
def test_results_scale_with_the_unit_of_measurement(seed, solver, probes, per_probe, unit, with_prior):
    design, measurements, prior, _ = device(seed, probes=probes, per_probe=per_probe)
    scaled_prior = Prior(unit * prior.sensitivity, prior.precision)
    one = recover(design, measurements, solver=solver, prior=prior if with_prior else None)
    other = recover(design, unit * measurements, solver=solver, prior=scaled_prior if with_prior else None)
    assert other.strength == one.strength
    np.testing.assert_allclose(design @ other.sensitivity / unit, design @ one.sensitivity, rtol=1e-6)
    np.testing.assert_allclose(other.precision, one.precision, rtol=1e-6)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), probes=st.integers(1, 16), penalty=st.sampled_from(["l1", "l2"]))
def test_the_order_of_probes_does_not_matter(seed, probes, penalty):
    design, measurements, prior, _ = device(seed, probes=probes)
    order = np.random.default_rng(seed).permutation(probes)
    one = recover(design, measurements, prior=prior, penalty=penalty)
    other = recover(design[order], measurements[order], prior=prior, penalty=penalty)
    assert other.strength == one.strength
    np.testing.assert_allclose(design @ other.sensitivity, design @ one.sensitivity, rtol=1e-6)
    np.testing.assert_allclose(other.precision, one.precision, rtol=1e-6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    solver=st.sampled_from(SOLVERS),
    probes=st.integers(1, 20),
    with_prior=st.booleans(),
)
def test_whatever_is_measured_the_result_is_in_range(seed, solver, probes, with_prior):
    rng = np.random.default_rng(seed)
    design = (rng.random((probes, 15)) < 0.2).astype(float)
    measurements = rng.choice([-1.0, 0.0, 1e-9, 1.0, 50.0], probes)
    prior = Prior(rng.choice([0.0, 1e-6, 1.0], 15), rng.choice([0.0, 0.9], 15)) if with_prior else None
    result = recover(design, measurements, solver=solver, prior=prior)
    assert np.all(np.isfinite(result.sensitivity) & (result.sensitivity >= 0))
    assert np.all((result.precision >= 0) & (result.precision < 1))
    assert np.array_equal(result.precision == 0, ~design.any(axis=0))
    assert result.r2 is None or (probes >= 4 and result.r2 <= 1.0)


def test_single_layer_probes_are_believed_and_the_rest_comes_from_the_fleet():
    design, measurements, prior, _ = device(0, per_probe=1, noise=0.0, prior_error=0.3)
    seen = design.any(axis=0)
    result = recover(design, measurements, prior=prior)
    ratio = result.sensitivity[~seen] / prior.sensitivity[~seen]
    np.testing.assert_allclose(ratio, ratio[0])
    largest = np.argmax(measurements)
    assert result.sensitivity[np.argmax(design[largest])] == pytest.approx(measurements[largest], rel=0.05)


@pytest.mark.parametrize("prior", [None, Prior(np.ones(24), np.zeros(24))])
def test_deviation_without_a_usable_prior_is_lasso(prior):
    design, measurements, _, _ = device(1)
    result, lasso = recover(design, measurements, prior=prior), recover(design, measurements, solver="lasso")
    assert result.solver == "lasso"
    np.testing.assert_array_equal(result.sensitivity, lasso.sensitivity)


@pytest.mark.parametrize("solver", ["lasso", "omp"])
def test_unseen_atoms_get_the_mean_of_the_seen_and_no_precision(solver):
    result = recover(np.eye(4, 6), np.array([1.0, 2.0, 3.0, 4.0]), solver=solver)
    np.testing.assert_allclose(result.sensitivity[4:], result.sensitivity[:4].mean())
    assert not result.precision[4:].any()
    np.testing.assert_array_equal(shrink_unseen(np.zeros(3), np.zeros(3, dtype=bool)), np.zeros(3))


@pytest.mark.parametrize("solver", ["lasso", "omp"])
def test_atoms_that_always_go_together_share_what_was_found(solver):
    design = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    alone = recover(design, np.array([4.0, 4.0, 1.0]), solver=solver, strength=1e-9).sensitivity
    np.testing.assert_allclose(alone, [2.0, 2.0, 1.0], rtol=1e-6)
    prior = Prior(np.array([3.0, 1.0, 1.0]), np.ones(3))
    known = recover(design, np.array([4.0, 4.0, 1.0]), solver=solver, strength=1e-9, prior=prior).sensitivity
    np.testing.assert_allclose(known, [3.0, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("solver", ["lasso", "omp"])
def test_unseen_atoms_get_the_prior_where_there_is_one(solver):
    prior = Prior(np.arange(1.0, 7.0), np.ones(6))
    result = recover(np.eye(4, 6), 1.0 * np.arange(1, 5), solver=solver, prior=prior)
    np.testing.assert_allclose(result.sensitivity[4:], [5.0, 6.0])


def test_without_probes_the_prior_is_all_there_is():
    prior = Prior(np.array([1.0, 2.0]), np.ones(2))
    result = recover(np.zeros((0, 2)), np.zeros(0), prior=prior)
    assert result.sensitivity.tolist() == [1.0, 2.0]
    assert result.precision.tolist() == [0.0, 0.0]
    assert result.r2 is None
    with pytest.raises(UserError, match="no probes"):
        recover(np.zeros((0, 2)), np.zeros(0))


@pytest.mark.parametrize("solver", SOLVERS)
def test_r2_needs_four_probes_that_differ(solver):
    design, measurements, prior, _ = device(0)
    assert recover(design[:3], measurements[:3], solver=solver, prior=prior).r2 is None
    assert recover(design, np.ones(6), solver=solver, prior=prior).r2 is None
    assert recover(design[:4], measurements[:4], solver=solver, prior=prior).r2 is not None


@pytest.mark.parametrize("solver", SOLVERS)
def test_seed_decides_and_strength_can_be_fixed(solver):
    design, measurements, prior, _ = device(0, probes=30)
    one, same = (recover(design, measurements, solver=solver, prior=prior, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.sensitivity, same.sensitivity)
    fixed = recover(design, measurements, solver=solver, prior=prior, strength=0.25)
    assert fixed.strength == 0.25
    assert fixed.r2 is not None


@pytest.mark.parametrize(
    ("error", "text", "change"),
    [
        (ValueError, "design", {"design": np.ones(3)}),
        (ValueError, "design", {"measurements": np.ones(4)}),
        (ValueError, "prior", {"prior": Prior(np.ones(2), np.ones(2))}),
        (ValueError, "finite", {"design": np.full((3, 5), np.nan)}),
        (UserError, "measurement 1", {"measurements": np.array([0.0, np.nan, 1.0])}),
        (UserError, "solver 'ols'", {"solver": "ols"}),
        (UserError, "strength", {"strength": -1.0}),
    ],
)
def test_what_does_not_fit_is_refused(error, text, change):
    arguments = {"design": np.ones((3, 5)), "measurements": np.ones(3)} | change
    with pytest.raises(error, match=text):
        recover(arguments.pop("design"), arguments.pop("measurements"), **arguments)
