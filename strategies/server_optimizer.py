"""What every server optimizer offers: a step from the last rounds' result towards this round's reduction."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.component import Component

Vector = NDArray[np.float64]
State = dict[str, list[float]]


@dataclass(kw_only=True)
class ServerOptimizer(Component, ABC):
    """Adaptive federated optimization (Reddi et al. 2021, arXiv 2003.00295, algorithm 2) on statistics.

    What weights are there, the reduced statistics are here: their change, this round's reduction less the last result,
    is the pseudo-gradient. An entry's first reduction is its first result, and an entry that nobody measured in a round
    makes no step in it. Results are clipped to [0, 1].
    """

    moments: ClassVar[tuple[str, ...]]
    _memory: dict[str, Vector] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def move(self, change: Vector, moments: Mapping[str, Vector], steps: Vector) -> tuple[Vector, dict[str, Vector]]:
        """Return the move of each entry and the new moments, all [entries].

        change: the pseudo-gradient. moments: by name, as this returned them last, at first zeros. steps: number of
        moves of each entry, with this one.
        """

    def step(self, reduced: Vector, measured: NDArray[np.bool_]) -> Vector:
        """Return the round's result [statistics]; measured [statistics]: which entries anybody knows about."""
        if not self._memory:
            self._memory = {name: np.zeros_like(reduced) for name in ("value", "rounds", *self.moments)}
        value, rounds = self._memory["value"], self._memory["rounds"]
        first, later = measured & (rounds == 0.0), measured & (rounds > 0.0)
        before = {name: self._memory[name][later] for name in self.moments}
        move, after = self.move(reduced[later] - value[later], before, rounds[later])
        for name, moment in after.items():
            self._memory[name][later] = moment
        value[later] = np.clip(value[later] + move, 0.0, 1.0)
        value[first] = reduced[first]
        rounds[measured] += 1.0
        return value.copy()

    def state(self) -> State:
        """Return what must survive a restart: nothing before the first round."""
        return {name: entries.tolist() for name, entries in self._memory.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over what `state` returned. Raises ValueError on what it can't have returned."""
        expected = {"value", "rounds", *self.moments}
        if state and (set(state) != expected or len({len(entries) for entries in state.values()}) != 1):
            raise ValueError(f"{self.spec}: expected equally many entries of {', '.join(sorted(expected))}")
        self._memory = {name: np.array(entries, dtype=np.float64) for name, entries in state.items()}
