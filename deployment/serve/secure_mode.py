"""Whether the server of a fleet learns one sum, one for each cohort, or the statistics of each device."""

from typing import Literal

from personalization.errors import UserError
from server.settings import SecureMode
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.registry import make_strategy

ChosenMode = Literal["auto", "sum", "cohorts", "off"]


def secure_mode(chosen: ChosenMode, strategy: str) -> SecureMode:
    """Return what a server does: `auto` sums, in cohorts if the strategy has to tell several rows apart.

    Raises UserError for a strategy that works on no sums: it is never served in the open unasked.
    """
    if chosen != "auto":
        return chosen
    made = make_strategy(strategy)
    if made.groups > 1:
        raise UserError(
            f"--strategy {strategy}: puts each device into a group, for which the server has to see its statistics; "
            "take another strategy, or say so with --secure-aggregation off"
        )
    return "sum" if made.spec == PrecisionWeightedMean.name else "cohorts"
