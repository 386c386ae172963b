"""How much privacy a run is to keep, and what of it a round may spend."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from personalization.errors import UserError
from personalization.wire.privacy_terms import PrivacyTerms
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.privacy.accounting import rho_of
from strategies.privacy.mechanism import make_terms
from strategies.registry import make_strategy

DpMode = Literal["off", "central", "distributed"]
CLIP = 0.3
DELTA = 1e-5


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """mode: who adds the noise; `off` is nobody. epsilon, delta: what a client spends in a run at most. clip: the
    largest L2 norm of a client's deviations in a round, on the scale of the wire.
    """

    mode: DpMode = "off"
    epsilon: float = 4.0
    delta: float = DELTA
    clip: float = CLIP

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        if self.mode not in get_args(DpMode):
            raise UserError(f"dp {self.mode!r}: expected one of {', '.join(get_args(DpMode))}")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0.0):
            raise UserError(f"epsilon {self.epsilon}: expected a number above 0; for no noise at all, dp off")
        if not 0.0 < self.delta < 1.0:
            raise UserError(
                f"delta {self.delta}: expected a number between 0 and 1, far below 1 in a number of devices"
            )
        if not 0.0 < self.clip <= 100.0:
            raise UserError(f"clip {self.clip}: expected a number above 0 and at most 100")

    def check_run(self, *, strategy: str, secure: str, probes: int) -> None:
        """Raise UserError for a run that can't keep any privacy, with a line that says what to change."""
        if self.mode == "off":
            return
        if make_strategy(strategy).spec != PrecisionWeightedMean.name:
            raise UserError(
                f"dp {self.mode}: a noisy sum gives {PrecisionWeightedMean.name}, and {strategy} needs to tell clients "
                "apart; choose one of them, or dp off"
            )
        if self.mode == "distributed" and secure == "off":
            raise UserError(
                "dp distributed: one client's share of the noise hides nothing; it needs secure-aggregation sum or "
                "cohorts, or choose dp central"
            )
        if probes < 1:
            raise UserError(f"dp {self.mode}: probes {probes}: expected 1 or more; there is nothing else to release")

    def to_config(self) -> dict[str, float | str]:
        """Return the settings for a run configuration; none where there is no noise, as in runs of earlier versions."""
        if self.mode == "off":
            return {}
        return {"dp": self.mode, "epsilon": self.epsilon, "delta": self.delta, "clip": self.clip}

    def round_rho(self, *, rounds: int, fraction: float) -> float:
        """Return what an answer may cost: a client is asked `most_answers` times in a run."""
        return rho_of(self.epsilon, self.delta) / most_answers(rounds, fraction)

    def terms(self, *, rounds: int, fraction: float) -> PrivacyTerms:
        """Return what the plans of a run with noise say."""
        assert self.mode != "off"
        return make_terms(self.mode, clip=self.clip, rho=self.round_rho(rounds=rounds, fraction=fraction))


def most_answers(rounds: int, fraction: float) -> int:
    """Return how often a client is asked in a run of so many rounds that ask `fraction` of the clients: in turn."""
    return max(1, math.ceil(rounds * fraction - 1e-9))


def read_privacy(config: Mapping[str, bool | int | float | str]) -> PrivacySettings:
    """Return the settings in a run configuration. Raises UserError that names the key."""
    numbers = {}
    for key in ("epsilon", "delta", "clip"):
        value = config.get(key, getattr(PrivacySettings, key))
        if isinstance(value, bool | str):
            raise UserError(f"{key} {value!r}: expected a number")
        numbers[key] = float(value)
    mode = str(config.get("dp", PrivacySettings.mode))
    if mode not in get_args(DpMode):
        raise UserError(f"dp {mode!r}: expected one of {', '.join(get_args(DpMode))}")
    chosen: DpMode = "central" if mode == "central" else "distributed" if mode == "distributed" else "off"
    return PrivacySettings(mode=chosen, **numbers)
