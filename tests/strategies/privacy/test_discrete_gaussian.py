"""The sampler against the distribution that it is to have."""

import math
from collections import Counter

import pytest
from scipy.stats import chisquare

from simulations.noise import SeededEntropy
from strategies.privacy.discrete_gaussian import sample_discrete_gaussian, uniform_integers

DRAWS = 20_000


@pytest.mark.parametrize("variance", [1, 3, 50])
def test_draws_follow_the_discrete_gaussian(variance: int) -> None:
    drawn = sample_discrete_gaussian(variance, DRAWS, SeededEntropy(f"chi {variance}"))
    reach = math.ceil(3.0 * math.sqrt(variance))
    weights = {x: math.exp(-(x**2) / (2 * variance)) for x in range(-20 * reach, 20 * reach + 1)}
    whole = sum(weights.values())
    counts = Counter(drawn.tolist())
    inside = [counts[x] for x in range(-reach, reach + 1)]
    expected = [DRAWS * weights[x] / whole for x in range(-reach, reach + 1)]
    outside = DRAWS - sum(inside), DRAWS - sum(expected)
    assert chisquare([*inside, outside[0]], [*expected, outside[1]]).pvalue > 1e-3


def test_moments_of_a_wide_one() -> None:
    variance = 4096**2
    drawn = sample_discrete_gaussian(variance, DRAWS, SeededEntropy("wide")).astype(float)
    assert abs(drawn.mean()) < 5.0 * math.sqrt(variance / DRAWS)
    assert drawn.var() == pytest.approx(variance, rel=5.0 * math.sqrt(2.0 / DRAWS))
    assert (drawn**4).mean() / variance**2 == pytest.approx(3.0, rel=0.15)


@pytest.mark.parametrize("bound", [1, 2, 3, 255, 256, 257, 10**12 + 39])
def test_uniform_integers_are_uniform_and_below_the_bound(bound: int) -> None:
    uniform = uniform_integers(SeededEntropy(str(bound)))
    drawn = [uniform(bound) for _ in range(6000)]
    assert min(drawn) >= 0
    assert max(drawn) < bound
    if bound > 2:
        thirds = Counter(3 * x // bound for x in drawn)
        sizes = Counter(3 * x // bound for x in range(bound)) if bound < 1000 else dict.fromkeys(range(3), bound / 3)
        assert chisquare([thirds[k] for k in range(3)], [6000 * sizes[k] / bound for k in range(3)]).pvalue > 1e-3


def test_a_variance_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="variance"):
        sample_discrete_gaussian(0, 1, SeededEntropy(""))
