from fractions import Fraction

import pytest
from Crypto.Math.Numbers import Integer
from Crypto.Util.number import isPrime
from hypothesis import given
from hypothesis import strategies as st

from strategies.secure_aggregation.shamir import PRIME, combine, extend, from_bytes, to_bytes, uniform

VALUES = st.integers(0, PRIME - 1)


@st.composite
def sharings(draw: st.DrawFn) -> tuple[list[int], dict[int, int]]:
    """Coefficients of a polynomial, the secret first, and its values at more points than its degree."""
    coefficients = draw(st.lists(VALUES, min_size=1, max_size=8))
    points = draw(st.lists(st.integers(1, 300), min_size=len(coefficients), max_size=20, unique=True))
    return coefficients, {point: evaluate(coefficients, point) for point in points}


def evaluate(coefficients: list[int], point: int) -> int:
    return sum(value * point**power for power, value in enumerate(coefficients)) % PRIME


def direct(shares: dict[int, int], at: int) -> int:
    """Lagrange's formula in fractions, with pycryptodome's modular inverse."""
    total = 0
    for point, value in shares.items():
        weight = Fraction(1)
        for other in shares.keys() - {point}:
            weight *= Fraction(at - other, point - other)
        inverse = int(Integer(weight.denominator).inverse(PRIME))
        total += value * weight.numerator * inverse
    return total % PRIME


def test_the_field_is_the_largest_prime_of_128_bits() -> None:
    assert isPrime(PRIME)
    assert not any(isPrime(number) for number in range(PRIME + 2, 2**128, 2))


@given(sharings(), st.randoms(use_true_random=False))
def test_any_threshold_of_shares_gives_the_secret(sharing: tuple[list[int], dict[int, int]], random) -> None:
    coefficients, shares = sharing
    chosen = dict(random.sample(sorted(shares.items()), len(coefficients)))
    assert combine(chosen) == coefficients[0] == direct(chosen, 0)


@given(sharings(), st.lists(st.integers(301, 400), min_size=1, max_size=5, unique=True))
def test_extending_evaluates_the_same_polynomial(sharing: tuple[list[int], dict[int, int]], at: list[int]) -> None:
    coefficients, shares = sharing
    known = dict(list(shares.items())[: len(coefficients)])
    assert extend(known, at) == [evaluate(coefficients, point) for point in at] == [direct(known, p) for p in at]


@given(VALUES, VALUES, st.lists(VALUES, min_size=3, max_size=3))
def test_one_share_too_few_fits_every_secret(first: int, second: int, others: list[int]) -> None:
    shares = dict(zip((1, 2, 3), others, strict=True))
    for secret in (first, second):
        fourth = extend({0: secret, **shares}, [4])[0]
        assert combine({**shares, 4: fourth}) == secret


@given(VALUES)
def test_values_survive_their_bytes(value: int) -> None:
    assert from_bytes(to_bytes(value)) == value
    assert len(to_bytes(value)) == 16


@pytest.mark.parametrize("value", [PRIME, 2**128 - 1])
def test_bytes_that_are_no_value_are_told_apart(value: int) -> None:
    assert from_bytes(value.to_bytes(16, "little")) is None
    assert 0 <= uniform(value.to_bytes(32, "little")) < PRIME
