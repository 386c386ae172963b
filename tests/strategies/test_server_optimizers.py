import numpy as np
import pytest
import torch
from cohorts import LAYOUT, PRECISION, SHARES, make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.adam import Adam
from strategies.momentum import Momentum
from strategies.registry import make_strategy

SOME = settings(max_examples=25)
targets = st.integers(0, 2**32 - 1).map(lambda seed: 0.3 + 0.4 * np.random.default_rng(seed).random((6, 5)))


def torchs(optimizer_type, targets: np.ndarray, **settings: object) -> np.ndarray:
    value = torch.nn.Parameter(torch.from_numpy(targets[0].copy()))
    optimizer = optimizer_type([value], **settings)
    for target in targets[1:]:
        value.grad = value.data - torch.from_numpy(target)
        optimizer.step()
    return value.detach().numpy()


def ours(optimizer, targets: np.ndarray) -> np.ndarray:
    for target in targets:
        value = optimizer.step(target, np.ones(len(target), dtype=bool))
    return value


@given(targets, st.floats(0.05, 0.3), st.floats(0, 0.6))
@SOME
def test_momentum_is_torchs(targets, rate, decay):
    expected = torchs(torch.optim.SGD, targets, lr=rate, momentum=decay)
    np.testing.assert_allclose(ours(Momentum(rate=rate, decay=decay), targets), expected, atol=1e-12)


@given(targets, st.floats(0.01, 0.05), st.floats(0, 0.95), st.floats(0, 0.999))
@SOME
def test_adam_is_torchs(targets, rate, beta1, beta2):
    expected = torchs(torch.optim.Adam, targets, lr=rate, betas=(beta1, beta2), eps=1e-3)
    np.testing.assert_allclose(ours(Adam(rate=rate, beta1=beta1, beta2=beta2), targets), expected, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_first_round_is_the_reduction_itself(optimizer):
    rows = list(make_cohort(np.random.default_rng(0), 9))
    assert np.array_equal(make_strategy(f"median+{optimizer}")(rows, LAYOUT), make_strategy("median")(rows, LAYOUT))


@pytest.mark.parametrize("optimizer", [Momentum(rate=1.0, decay=0.9), Adam(rate=1.0)])
def test_no_step_leaves_the_unit_interval(optimizer):
    everything = np.ones(1, dtype=bool)
    for target in (0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0):
        assert 0.0 <= optimizer.step(np.array([target]), everything)[0] <= 1.0


def test_momentum_without_memory_is_the_reduction():
    rng = np.random.default_rng(1)
    strategy, plain = make_strategy("mean+momentum:rate=1:decay=0"), make_strategy("mean")
    for _ in range(4):
        rows = list(make_cohort(rng, 8))
        np.testing.assert_allclose(strategy(rows, LAYOUT), plain(rows, LAYOUT), atol=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum:rate=0.3", "adam:rate=0.05"])
def test_both_arrive_where_the_fleet_stays(optimizer):
    strategy = make_strategy(f"mean+{optimizer}")
    rng = np.random.default_rng(2)
    first, last = make_cohort(rng, 1, measured=2.0)[0], make_cohort(rng, 1, measured=2.0)[0]
    strategy([first], LAYOUT)
    for _ in range(400):
        found = strategy([last], LAYOUT)
    np.testing.assert_allclose(found, last, atol=0.01)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_an_atom_that_nobody_measures_waits(optimizer):
    """A round without evidence on an atom must neither move it nor count as a step."""
    rng = np.random.default_rng(3)
    rounds = [make_cohort(rng, 8, measured=2.0) for _ in range(3)]
    blind = make_cohort(rng, 8, measured=2.0)
    blind[:, [PRECISION.start, SHARES.start]] = 0.0
    with_gap, without = make_strategy(f"mean+{optimizer}"), make_strategy(f"mean+{optimizer}")
    for rows in rounds[:2]:
        with_gap(list(rows), LAYOUT)
        without(list(rows), LAYOUT)
    assert with_gap(list(blind), LAYOUT)[SHARES.start] == 0.0
    a, b = (strategy(list(rounds[2]), LAYOUT) for strategy in (with_gap, without))
    assert a[SHARES.start] == b[SHARES.start]
    assert a[SHARES.start + 1] != b[SHARES.start + 1]
