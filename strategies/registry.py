"""The strategies by name: a new one is one line here."""

import difflib

from personalization.errors import UserError
from strategies.base import Strategy
from strategies.precision_weighted_mean import PrecisionWeightedMean

STRATEGIES: dict[str, type[Strategy]] = {
    PrecisionWeightedMean.name: PrecisionWeightedMean,
}


def make_strategy(name: str) -> Strategy:
    """Return the strategy called `name`. Raises UserError that names the nearest one there is."""
    if name not in STRATEGIES:
        nearest = difflib.get_close_matches(name, STRATEGIES, n=1, cutoff=0.0)
        raise UserError(f"strategy {name!r}: unknown; did you mean {nearest[0]}? There are: {', '.join(STRATEGIES)}")
    return STRATEGIES[name]()
