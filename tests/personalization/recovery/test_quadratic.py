import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from personalization.recovery.quadratic import minimize, optimality_violation


def problem(seed, probes, atoms, *, twins=False, spread=0.0):
    """A random 0/1 design with its measurements; `twins` are atoms that always go together, `spread` their orders."""
    rng = np.random.default_rng(seed)
    design = (rng.random((probes, atoms)) < rng.choice([0.1, 0.3, 0.6])).astype(float)
    design *= 10.0 ** rng.uniform(-spread, 0.0, atoms)
    if twins and atoms > 1:
        design[:, 1] = design[:, 0]
    measurements = design @ rng.exponential(size=atoms) + 0.1 * rng.normal(size=probes)
    return rng, design, measurements


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    probes=st.integers(1, 30),
    atoms=st.integers(1, 50),
    twins=st.booleans(),
    kinked=st.booleans(),
    spread=st.sampled_from([0.0, 2.0]),
    strength=st.floats(1e-6, 1.0),
)
def test_minimum_meets_its_optimality_conditions(seed, probes, atoms, twins, kinked, spread, strength):
    rng, design, measurements = problem(seed, probes, atoms, twins=twins, spread=spread)
    hessian, linear = design.T @ design / probes, design.T @ measurements / probes
    slopes = strength * np.max(np.abs(linear)) * 10.0 ** rng.uniform(-1, 1, atoms)
    kinks = rng.exponential(size=atoms) if kinked else np.zeros(atoms)
    x = minimize(hessian, linear, slopes, kinks, kinks)
    scale = max(np.max(np.abs(linear)), np.max(slopes))
    assert np.all(x >= 0)
    assert np.all(optimality_violation(hessian, linear, slopes, kinks, x) <= 1e-10 * scale)

    def objective(point):
        return point @ hessian @ point / 2 - linear @ point + slopes @ np.abs(point - kinks)

    for step in (1e-3, 0.1):
        other = np.maximum(x + step * rng.normal(size=atoms), 0.0)
        assert objective(x) <= objective(other) + 1e-9 * max(scale, 1e-12)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), probes=st.integers(1, 20), atoms=st.integers(1, 30))
def test_without_penalty_the_fit_is_that_of_nonnegative_least_squares(seed, probes, atoms):
    _, design, measurements = problem(seed, probes, atoms, twins=True)
    zeros = np.zeros(atoms)
    x = minimize(design.T @ design, design.T @ measurements, zeros, zeros, zeros)
    reference, _ = nnls(design, measurements)
    np.testing.assert_allclose(design @ x, design @ reference, atol=1e-8)


def test_start_does_not_matter():
    rng, design, measurements = problem(3, 40, 20)
    hessian, linear = design.T @ design, design.T @ measurements
    slopes = np.full(20, 0.1 * np.max(linear))
    zeros = np.zeros(20)
    one = minimize(hessian, linear, slopes, zeros, zeros)
    other = minimize(hessian, linear, slopes, zeros, rng.exponential(size=20))
    np.testing.assert_allclose(one, other, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        # f'(x) = 2x - 3 beside the kink at 1 with slope 1: falls left of it, rises right of it by 0 and more.
        (0.0, 4.0),
        (0.5, 3.0),
        (1.0, 0.0),
        (2.0, 2.0),
    ],
)
def test_violation_is_the_distance_from_the_subdifferential(x, expected):
    violation = optimality_violation(
        np.array([[2.0]]), np.array([3.0]), np.array([1.0]), np.array([1.0]), np.array([x])
    )
    assert violation.tolist() == [expected]
