"""How long to wait before trying again: longer each time, and never the same on all devices of a fleet."""

import random
from collections.abc import Callable

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


class Backoff:
    """Waits that double from `first` up to `longest` seconds, each shortened by a random share of up to a half."""

    def __init__(
        self,
        *,
        first: float = FIRST_SECONDS,
        longest: float = LONGEST_SECONDS,
        uniform: Callable[[], float] | None = None,
    ) -> None:
        """uniform: draws from [0, 1); the operating system's randomness unless given."""
        self._first, self._longest = first, longest
        self._uniform = uniform or random.SystemRandom().random
        self._bound = first

    def next(self, *, longest: float | None = None) -> float:
        """Return the next wait in seconds. longest: of this one, where what is waited for ends at a known time."""
        bound = self._bound if longest is None else min(self._bound, longest)
        self._bound = min(2 * bound, self._longest)
        return bound * (1 - 0.5 * self._uniform())

    def reset(self) -> None:
        """Begin anew, after something worked."""
        self._bound = self._first
