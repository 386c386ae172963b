"""What an inference run attacks, and how much of it."""

from dataclasses import dataclass
from pathlib import Path

from personalization.errors import UserError
from personalization.settings import PersonalizationSettings

# Below this, halves of the shadow clients have nothing to teach each other.
_FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """Clients to attack, clients to learn from, and what is seen of them.

    targets: clients that are attacked. shadow: clients of the attacker's own fleets, on which attackers are trained;
    nobody is both. warm_up: clients whose two rounds give the plan that all others get. pool: images of each class
    that all clients draw from; the fewer, the more often an attacker has seen each of them in a shadow client's hands.
    samples, classes_per_client: what a client holds. probes, budget: of the plan. cohorts: sizes of secure sums; 1 is a
    single vector. epsilons: of the noise on sums, at `delta`. trials: cohorts around each target. candidates: images
    held, and as many not held, by each target that membership is asked for. fedavg_targets, fedavg_shadow: how many of
    the clients also send updates of FedAvg, 0 for none. epochs: in which networks are trained. model, data: None are
    the bundled ones. cache: folder of recordings; None keeps none.
    """

    targets: int = 80
    shadow: int = 120
    warm_up: int = 30
    pool: int = 300
    samples: int = 200
    classes_per_client: int = 3
    probes: int = PersonalizationSettings.probes
    budget: float = PersonalizationSettings.budget
    cohorts: tuple[int, ...] = (1, 3, 5, 10, 25, 50, 100)
    epsilons: tuple[float, ...] = (8.0, 1.0)
    delta: float = 1e-5
    trials: int = 5
    candidates: int = 20
    fedavg_targets: int = 20
    fedavg_shadow: int = 30
    epochs: int = 15
    model: str | None = None
    data: Path | None = None
    cache: Path | None = Path("runs/inference")
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        for name in ("targets", "shadow", "warm_up", "pool", "trials", "candidates", "epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected 1 or more")
        if min(self.targets, self.shadow) < _FEWEST:
            raise UserError(f"{self.targets} targets, {self.shadow} shadow clients: expected {_FEWEST} or more of each")
        if not self.cohorts or min(self.cohorts) < 1:
            raise UserError(f"cohorts {self.cohorts}: expected sizes of 1 or more")
        for name, most in (("fedavg_targets", self.targets), ("fedavg_shadow", self.shadow)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} {getattr(self, name)}: expected 0 to {most}, the clients that there are")
        if (self.fedavg_targets == 0) != (self.fedavg_shadow == 0):
            raise UserError("fedavg_targets and fedavg_shadow: expected both 0, or both more")
        if any(not epsilon > 0.0 for epsilon in self.epsilons):
            raise UserError(f"epsilons {self.epsilons}: expected numbers above 0")
        if not 0.0 < self.delta < 1.0:
            raise UserError(f"delta {self.delta}: expected a probability between 0 and 1")
        if self.seed < 0:
            raise UserError(f"seed {self.seed}: expected 0 or more")

    @property
    def clients(self) -> int:
        """Number of clients of all three kinds."""
        return self.warm_up + self.targets + self.shadow
