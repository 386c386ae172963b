"""What `fedsieve join` is told."""

from dataclasses import dataclass
from pathlib import Path

from deployment.join.vault_choice import VaultChoice
from personalization.errors import UserError
from personalization.settings import PersonalizationSettings, Recovery
from personalization.tasks import TextBatch
from strategies.secure_aggregation.settings import SMALLEST_COHORT, SecureAggregationSettings


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """What is asked for. data: the private images or text. state, vault, budget: None for the default.

    windows, window_tokens: how much text is taken, and recovery: what makes up for a cut; None for the fleet's.
    sums_only: whether this device gives its statistics to secure sums alone. smallest_cohort: fewest devices of these.
    record: folder for a recording of all that this device sends.
    epsilon_budget: what it gives away in its whole life, None for no limit.
    """

    node_file: Path
    data: Path
    state: Path | None = None
    vault: VaultChoice | None = None
    budget: float | None = None
    windows: int | None = None
    window_tokens: int | None = None
    recovery: Recovery | None = None
    sums_only: bool = True
    smallest_cohort: int = SMALLEST_COHORT
    record: Path | None = None
    epsilon_budget: float | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises UserError."""
        if self.budget is not None and not 0 < self.budget <= 1:
            raise UserError(f"--budget {self.budget}: expected a share above 0 to 1")
        if self.epsilon_budget is not None and not self.epsilon_budget > 0:
            raise UserError(f"--epsilon-budget {self.epsilon_budget}: expected a number above 0")
        SecureAggregationSettings(smallest_cohort=self.smallest_cohort)
        PersonalizationSettings(recovery=self.recovery or PersonalizationSettings.recovery)
        asked = {"windows": self.windows, "tokens": self.window_tokens}
        TextBatch(**{key: value for key, value in asked.items() if value is not None})

    def own(self) -> dict[str, str | float]:
        """Return what the node configuration says about personalizing, where this device does not as the fleet does."""
        asked = {
            "budget": self.budget,
            "windows": self.windows,
            "window-tokens": self.window_tokens,
            "recovery": self.recovery,
        }
        return {key: value for key, value in asked.items() if value is not None}

    @property
    def privacy(self) -> str:
        """What leaves the device, in words."""
        sums = f"secure sums over {self.smallest_cohort} devices or more"
        return f"statistics go into {sums}" + (" alone" if self.sums_only else ", or to the server in the open")
