"""What the server of a fleet learns: sums of devices' statistics unless somebody says otherwise, and from how many."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deployment.serve.settings import ServeSettings
from personalization.errors import UserError
from server.sampling import sample_size
from strategies.privacy.words import write_privacy
from strategies.registry import make_strategy


@dataclass(frozen=True)
class Sums:
    """settings: of a server. devices: how many are enrolled and not revoked."""

    settings: ServeSettings
    devices: int

    @property
    def rows(self) -> int:
        """How many sums a round needs: as many as the strategy needs rows."""
        if self.settings.secure_mode != "cohorts":
            return 1
        made = make_strategy(self.settings.strategy)
        return next(rows for rows in range(1, 1000) if _bears(made.check_cohort, rows))

    @property
    def fewest(self) -> int:
        """How many devices have to be connected for a round to teach anything."""
        asked = self.rows * self.settings.smallest_cohort
        connected = math.ceil(asked / self.settings.fraction)
        while sample_size(connected - 1, self.settings.fraction) >= asked:
            connected -= 1
        return connected

    @property
    def enough(self) -> bool:
        """Whether as many are enrolled."""
        return self.settings.secure_mode == "off" or self.devices >= self.fewest

    @property
    def min_nodes(self) -> int:
        """How many devices a round waits for, unless somebody says: for as many as a sum takes, if there are so many.

        A smaller fleet is not made to wait for what will not come: its devices get their models without the fleet's.
        """
        if self.settings.min_nodes is not None:
            return self.settings.min_nodes
        return 1 if self.settings.secure_mode == "off" or not self.enough else self.fewest

    def resolved(self) -> ServeSettings:
        """Return the settings with the number of devices to wait for."""
        return replace(self.settings, min_nodes=self.min_nodes)

    def lines(self) -> Sequence[str]:
        """Return what is worth a log at the start: what the server learns, and what is in its way."""
        mode, smallest = self.settings.secure_mode, self.settings.smallest_cohort
        if mode == "off":
            return ["warning: --secure-aggregation off: this server sees the statistics of each device", self._noise()]
        what = "the sum" if mode == "sum" else "sums of random cohorts"
        found = [f"secure aggregation: learns {what} of {smallest} devices or more, and no device's own statistics"]
        found.append(self._noise())
        if not self.enough:
            found.append(
                f"warning: {self.devices} devices enrolled, and rounds teach nothing with fewer than {self.fewest} "
                "connected: every device gets its personal model without the fleet's help. Enrol more, or lower "
                "--smallest-cohort here and with each fedsieve join (3 or more; a smaller sum says more about each)"
            )
        return found

    def _noise(self) -> str:
        privacy = self.settings.privacy
        if privacy.mode == "off":
            return "differential privacy: none"
        spent = write_privacy({"mode": privacy.mode, "epsilon": privacy.epsilon, "delta": privacy.delta})
        return f"differential privacy: {spent}, of a device in one run"


def _bears(check: Callable[[int], None], rows: int) -> bool:
    try:
        check(rows)
    except UserError:
        return False
    return True
