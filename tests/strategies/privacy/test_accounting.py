"""Epsilon against the reference libraries."""

import math

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp as opacus_rdp

from strategies.privacy.accounting import distributed_rho, epsilon_of, gaussian_rho, rho_of

ORDERS = [1.0 + 10.0 ** (k / 100 - 3) for k in range(700)]
MULTIPLIERS, ROUNDS = (0.5, 1.0, 4.0, 20.0), (1, 3, 10)


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_epsilon_is_that_of_dp_accounting(multiplier: float, rounds: int) -> None:
    accountant = RdpAccountant(ORDERS, dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(multiplier), rounds)
    ours = epsilon_of(rounds * gaussian_rho(1.0, multiplier**2), 1e-5)
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)
    # The order is searched and not taken from a list, so ours is never the larger one.
    assert ours <= accountant.get_epsilon(1e-5) * (1.0 + 1e-9)


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_epsilon_is_that_of_opacus(multiplier: float, rounds: int) -> None:
    costs = opacus_rdp.compute_rdp(q=1.0, noise_multiplier=multiplier, steps=rounds, orders=ORDERS)
    theirs, _ = opacus_rdp.get_privacy_spent(orders=ORDERS, rdp=costs, delta=1e-5)
    assert epsilon_of(rounds * gaussian_rho(1.0, multiplier**2), 1e-5) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("rho", [0.001, 0.1, 2.0])
def test_epsilon_is_not_below_the_exact_one_of_a_gaussian(rho: float) -> None:
    """Balle and Wang 2018: the exact curve of the Gaussian mechanism bounds every sound conversion from below."""
    epsilon, size = epsilon_of(rho, 1e-5), math.sqrt(2.0 * rho)

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2.0))

    exact = normal(size / 2 - epsilon / size) - math.exp(epsilon) * normal(-size / 2 - epsilon / size)
    assert exact <= 1e-5


@settings(max_examples=25)
@given(st.floats(0.01, 50.0), st.floats(1e-9, 0.1))
def test_rho_spends_its_epsilon_and_no_more(epsilon: float, delta: float) -> None:
    rho = rho_of(epsilon, delta)
    assert epsilon_of(rho, delta) <= epsilon
    assert epsilon_of(rho * 1.001, delta) > epsilon


@given(st.integers(2, 128), st.integers(20, 10**8))
def test_many_shares_cost_nearly_what_one_gaussian_does(shares: int, variance: int) -> None:
    whole = gaussian_rho(4096.0, shares * variance)
    found = distributed_rho(4096.0, variance, shares=shares, entries=24)
    assert found == pytest.approx(whole, rel=1e-9)


def test_shares_that_are_too_narrow_cost_more() -> None:
    assert distributed_rho(1.0, 0.05, shares=10, entries=24) > 2.0 * gaussian_rho(1.0, 0.5)
    assert distributed_rho(1.0, 0.05, shares=1, entries=24) == gaussian_rho(1.0, 0.05)


@pytest.mark.parametrize(("rho", "delta"), [(-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_what_makes_no_sense_is_refused(rho: float, delta: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        epsilon_of(rho, delta)
