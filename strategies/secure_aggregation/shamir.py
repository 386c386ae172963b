"""Shamir's secret sharing (1979, "How to share a secret") of 16 bytes over the integers modulo a prime.

A polynomial of degree threshold - 1 is fixed by as many values, and all but one of them may be chosen at random: the
secret is its value at 0. So shares that holder and owner can both derive from a key of theirs need not be sent (Cramer,
Damgard and Ishai 2005, "Share conversion, pseudorandom secret-sharing and applications to secure computation").
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from operator import mul

PRIME = 2**128 - 159
SHARE_BYTES = 16


def to_bytes(value: int) -> bytes:
    """Return a value of the field as 16 bytes."""
    return value.to_bytes(SHARE_BYTES, "little")


def from_bytes(raw: bytes) -> int | None:
    """Return the value of the field, or None for the few bytes that are none."""
    value = int.from_bytes(raw, "little")
    return value if value < PRIME else None


def uniform(raw: bytes) -> int:
    """Return a value of the field from 32 random bytes, uniform to within 2 ** -128."""
    return int.from_bytes(raw, "little") % PRIME


def extend(known: Mapping[int, int], at: Sequence[int]) -> list[int]:
    """Return the values at the points `at` of the polynomial through `known` (point: value), all of them small points.

    Lagrange's formula in its barycentric form. No point of `at` may be one of `known`.
    """
    points = tuple(known)
    inverses = _inverses(max((*points, *at)) + 1)
    terms = [value * weight % PRIME for value, weight in zip(known.values(), _weights(points), strict=True)]
    values = []
    for point in at:
        total = sum(map(mul, terms, [_inverse(inverses, point - other) for other in points]))
        values.append(total % PRIME * (prod(point - other for other in points) % PRIME) % PRIME)
    return values


def combine(shares: Mapping[int, int]) -> int:
    """Return the secret of exactly as many shares (point: value) as the threshold says."""
    return extend(shares, (0,))[0]


@lru_cache(maxsize=64)
def _weights(points: tuple[int, ...]) -> list[int]:
    """Return 1 / product of (point - other) for each point; one inversion for all (Montgomery's trick)."""
    products = [prod(point - other for other in points if other != point) % PRIME for point in points]
    running = [1]
    for factor in products:
        running.append(running[-1] * factor % PRIME)
    inverse = pow(running[-1], -1, PRIME)
    weights = []
    for factor, before in zip(reversed(products), reversed(running[:-1]), strict=True):
        weights.append(inverse * before % PRIME)
        inverse = inverse * factor % PRIME
    return weights[::-1]


@lru_cache(maxsize=8)
def _inverses(count: int) -> list[int]:
    """Return 1 / i for each i below `count`; the entry at 0 is not used."""
    inverses = [0, 1]
    for number in range(2, count):
        inverses.append(PRIME - PRIME // number * inverses[PRIME % number] % PRIME)
    return inverses


def _inverse(inverses: Sequence[int], difference: int) -> int:
    return inverses[difference] if difference > 0 else PRIME - inverses[-difference]
