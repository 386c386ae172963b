"""Exact samples of the discrete Gaussian: integers and random bytes in, integers out, nothing in floating point.

Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy" (arXiv 2004.00010), algorithms 1-3:
rejection from a discrete Laplace, whose coins of probability exp(-g) need nothing but uniform integers. Noise that is
rounded from a floating-point Gaussian has gaps that give the data away (Mironov 2012); this has none.
"""

from collections.abc import Callable
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.entropy import Entropy

Integers = NDArray[np.int64]
_BLOCK = 4096


def sample_discrete_gaussian(variance: int, count: int, entropy: Entropy) -> Integers:
    """Return `count` independent draws of P[x] proportional to exp(-x^2 / (2 variance)) over all integers.

    variance: 1 or more (the parameter; the variance of the draws is within 1e-7 of it). Raises ValueError.
    """
    if variance < 1 or count < 0:
        raise ValueError("a discrete Gaussian needs a variance of 1 or more and a count of 0 or more")
    uniform = uniform_integers(entropy)
    return np.array([_gaussian(variance, uniform) for _ in range(count)], dtype=np.int64)


def uniform_integers(entropy: Entropy) -> Callable[[int], int]:
    """Return a function that draws uniformly from 0 to `below` - 1, by rejection, out of the bytes of `entropy`."""
    buffer = bytearray()

    def below(bound: int) -> int:
        bits = (bound - 1).bit_length()
        size = (bits + 7) // 8
        while True:
            if len(buffer) < size:
                buffer.extend(entropy(max(_BLOCK, size)))
            drawn = int.from_bytes(buffer[len(buffer) - size :], "little") >> (8 * size - bits)
            del buffer[len(buffer) - size :]
            if drawn < bound:
                return drawn

    return below


def _gaussian(variance: int, uniform: Callable[[int], int]) -> int:
    scale = isqrt(variance) + 1
    while True:
        drawn = _laplace(scale, uniform)
        # Accepted with probability exp(-(|drawn| - variance / scale)^2 / (2 variance)).
        above = (abs(drawn) * scale - variance) ** 2
        if _exponential_coin(above, 2 * variance * scale**2, uniform):
            return drawn


def _laplace(scale: int, uniform: Callable[[int], int]) -> int:
    """Return a draw of P[x] proportional to exp(-|x| / scale)."""
    while True:
        rest = uniform(scale)
        if not _exponential_coin(rest, scale, uniform):
            continue
        whole = 0
        while _exponential_coin(1, 1, uniform):
            whole += 1
        size, negative = rest + scale * whole, uniform(2) == 1
        if size or not negative:
            return -size if negative else size


def _exponential_coin(numerator: int, denominator: int, uniform: Callable[[int], int]) -> bool:
    """Return True with probability exp(-numerator / denominator), both integers, the first 0 or more."""
    whole, rest = divmod(numerator, denominator)
    return all(_small_coin(1, 1, uniform) for _ in range(whole)) and _small_coin(rest, denominator, uniform)


def _small_coin(numerator: int, denominator: int, uniform: Callable[[int], int]) -> bool:
    """Return the same for numerator <= denominator (von Neumann's race of ever rarer coins)."""
    tries = 1
    while uniform(denominator * tries) < numerator:
        tries += 1
    return tries % 2 == 1
