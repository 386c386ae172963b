"""A strategy with a pre-aggregation before it, a server optimizer behind it, or both."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from strategies.base import State, Strategy, Vector
from strategies.pre_aggregation import PreAggregation
from strategies.server_optimizer import ServerOptimizer

_BASE, _OPTIMIZER = "base.", "optimizer."


class Composition(Strategy):
    """Mixes the rows, reduces them with `base` and takes the optimizer's step."""

    name = "composition"

    def __init__(
        self, base: Strategy, *, before: PreAggregation | None = None, after: ServerOptimizer | None = None
    ) -> None:
        """Compose. Raises UserError for an optimizer behind a strategy that makes groups: it keeps one state."""
        if after is not None and base.groups > 1:
            raise UserError(
                f"{base.spec}+{after.spec}: {after.name} remembers one result and {base.name} has one for each group; "
                "leave one of them out"
            )
        self._base, self._before, self._after = base, before, after
        self.groups = base.groups
        # Means do without balancing because they claim no robustness; who mixes neighbours first does.
        self.balanced = base.balanced or before is not None

    @property
    def spec(self) -> str:
        """The shortest text from which the registry makes an equal composition."""
        return "+".join(part.spec for part in (self._before, self._base, self._after) if part is not None)

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the composition's result [statistics] for rows as in `Strategy.reduce`."""
        return self._run(values, weights, self._base.reduce)

    def reduce_fields(self, values: Vector, weights: Vector, layout: StatisticsLayout) -> Vector:
        """Return the same where `base` knows which column is what."""
        return self._run(values, weights, partial(self._base.reduce_fields, layout=layout))

    def check_cohort(self, clients: int) -> None:
        """Raise UserError if the clients, or the rows that they are mixed to, are too few."""
        self._base.check_cohort(clients if self._before is None else self._before.rows(clients))

    def place(self, vectors: Mapping[int, Vector], layout: StatisticsLayout) -> dict[int, int]:
        """Return the groups that `base` places the clients in."""
        return self._base.place(vectors, layout)

    def state(self) -> State:
        """Return the state of base and optimizer."""
        state = {f"{_BASE}{key}": entries for key, entries in self._base.state().items()}
        if self._after is not None:
            state |= {f"{_OPTIMIZER}{key}": entries for key, entries in self._after.state().items()}
        return state

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over what `state` returned. Raises ValueError on what it can't have returned."""
        base = {key.removeprefix(_BASE): entries for key, entries in state.items() if key.startswith(_BASE)}
        after = {key.removeprefix(_OPTIMIZER): v for key, v in state.items() if key.startswith(_OPTIMIZER)}
        if len(base) + len(after) != len(state) or (after and self._after is None):
            raise ValueError(f"{self.spec}: state of something else: {', '.join(sorted(state))}")
        self._base.restore(base)
        if self._after is not None:
            self._after.restore(after)

    def _run(self, values: Vector, weights: Vector, reduce: Callable[[Vector, Vector], Vector]) -> Vector:
        measured = (weights > 0.0).max(axis=0)
        if self._before is not None:
            values, weights = self._before.mix(values, weights)
        reduced = reduce(values, weights)
        return reduced if self._after is None else self._after.step(reduced, measured)
