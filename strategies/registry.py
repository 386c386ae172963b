"""The strategies by name: a new one is one line here."""

import difflib
import math
from collections.abc import Iterable
from typing import TypeVar

from personalization.errors import UserError
from strategies.adam import Adam
from strategies.base import Strategy
from strategies.bucketing import Bucketing
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.clustered import Clustered
from strategies.component import Component
from strategies.composition import Composition
from strategies.geometric_median import GeometricMedian
from strategies.krum import Krum
from strategies.majority_vote import MajorityVote
from strategies.mean import Mean
from strategies.median import Median
from strategies.momentum import Momentum
from strategies.multi_krum import MultiKrum
from strategies.nearest_neighbour_mixing import NearestNeighbourMixing
from strategies.pre_aggregation import PreAggregation
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.quantile_consensus import QuantileConsensus
from strategies.server_optimizer import ServerOptimizer
from strategies.trimmed_mean import TrimmedMean

STRATEGIES: dict[str, type[Strategy]] = {
    PrecisionWeightedMean.name: PrecisionWeightedMean,
    Mean.name: Mean,
    Median.name: Median,
    TrimmedMean.name: TrimmedMean,
    Krum.name: Krum,
    MultiKrum.name: MultiKrum,
    Bulyan.name: Bulyan,
    GeometricMedian.name: GeometricMedian,
    CenteredClipping.name: CenteredClipping,
    MajorityVote.name: MajorityVote,
    QuantileConsensus.name: QuantileConsensus,
    Clustered.name: Clustered,
}
PRE_AGGREGATIONS: dict[str, type[PreAggregation]] = {
    NearestNeighbourMixing.name: NearestNeighbourMixing,
    Bucketing.name: Bucketing,
}
SERVER_OPTIMIZERS: dict[str, type[ServerOptimizer]] = {
    Momentum.name: Momentum,
    Adam.name: Adam,
}
_Part = TypeVar("_Part", bound=Component)


def make_strategy(spec: str) -> Strategy:
    """Return the strategy for `[pre-aggregation+]strategy[+server optimizer]`, each `name[:key=value[:key=value]]`.

    Raises UserError, with the nearest valid name, for what there is not, and for settings that make no sense.
    """
    parts = [part.strip() for part in spec.split("+")]
    names = [part.split(":")[0] for part in parts]
    for name in names:
        _known(name, [*STRATEGIES, *PRE_AGGREGATIONS, *SERVER_OPTIMIZERS], "strategy", spec)
    first, last = names[0] in PRE_AGGREGATIONS, names[-1] in SERVER_OPTIMIZERS
    middle = parts[int(first) : len(parts) - int(last)]
    if len(middle) != 1 or names[int(first)] not in STRATEGIES:
        raise UserError(
            f"strategy {spec!r}: expected one of {', '.join(STRATEGIES)}, if need be with one of "
            f"{', '.join(PRE_AGGREGATIONS)} and + before it and + and one of {', '.join(SERVER_OPTIMIZERS)} behind it"
        )
    base = _make(middle[0], STRATEGIES, spec)
    if not first and not last:
        return base
    return Composition(
        base,
        before=_make(parts[0], PRE_AGGREGATIONS, spec) if first else None,
        after=_make(parts[-1], SERVER_OPTIMIZERS, spec) if last else None,
    )


def canonical(spec: str) -> str:
    """Return the shortest spec of the same strategy: defaults left out, numbers and keys in one form and order.

    Raises UserError as `make_strategy` does.
    """
    return make_strategy(spec).spec


def _make(text: str, kinds: dict[str, type[_Part]], spec: str) -> _Part:
    name, *settings = text.split(":")
    kind = kinds[name]
    values: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"strategy {spec!r}: {setting!r}: expected key=value")
        _known(key, kind.settings(), f"{name}: setting", spec)
        if key in values:
            raise UserError(f"strategy {spec!r}: {key} stands there twice; give it once")
        values[key] = _value(f"{name}: {setting}", value, kind.settings()[key].type)
    return kind(**values)


def _value(where: str, text: str, kind: object) -> object:
    if kind is Strategy:
        return make_strategy(text)
    try:
        number = int(text) if kind is int else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: expected a {'whole number' if kind is int else 'number'}")
    return number


def _known(name: str, names: Iterable[str], what: str, spec: str) -> None:
    there = list(names)
    if name in there:
        return
    nearest = difflib.get_close_matches(name, there, n=1, cutoff=0.0)
    hint = f"did you mean {nearest[0]}? There are: {', '.join(there)}" if nearest else "it has no settings"
    place = f" in {spec!r}" if spec != name else ""
    raise UserError(f"{what} {name!r}{place}: unknown; {hint}")
