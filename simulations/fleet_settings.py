"""What a simulated fleet is: the settings of the command line, of scenarios and of benchmarks."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from client.settings import FIRST_PROBES
from personalization.data.tasks import TaskName, TextBatch
from personalization.errors import UserError
from personalization.settings import BudgetKind, PersonalizationSettings, Precision, Recovery, Signal, Solver
from server.settings import SecureMode, ServerSettings, check_secure
from simulations.known_models import model_folder
from simulations.partition import PartitionKind
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.privacy.settings import DpMode, PrivacySettings
from strategies.registry import make_strategy

Engine = Literal["in-process", "ray"]
_PRIVATE_DATA = "simulations.private_data:load"


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """A simulated fleet.

    clients, rounds, fraction: size of the fleet, number of rounds, share of the clients that each round asks.
    partition, classes_per_client, alpha, samples, data: who holds what, see PartitionSettings; data is a path or None
    for the bundled subset; reuse lets clients hold the same images, for fleets larger than the data. budget,
    budget_kind, signal, probes, solver, steps, step_probes, tolerance, layer_limit, recovery, refit_samples,
    tune_first, training_steps, adapters, training_precision, adapt_head: what each client does, see
    PersonalizationSettings. final_probes: probes of each client in the final pass, which every client takes part in;
    first_probes: of one that has measured nothing by then, where final_probes is 0.
    strategy: how the clients' statistics become one, see docs/strategies.md. secure_aggregation, cohort_size: whether
    the server learns sums alone, see docs/secure_aggregation.md. dp, epsilon, delta, clip: what noise sums get, see
    docs/privacy_differential.md. epsilon_budget: what each client gives away at most, in its life.
    model: folder or hub name; None is the bundled ViT. task: None is the model's. windows, window_tokens: how much text
    makes a client's private batch. vocabulary: how many tokens a client's language model keeps, None for all, -1
    for as many as share a budget of bytes best.
    out: folder of the run. resume: go on with the run in it. record: keep every encoded message of every client for an
    audit. canaries: how many clients get an image of noise, or a sentence of random letters, among their own data,
    which an audit then looks for.
    """

    out: Path
    clients: int = 30
    rounds: int = 3
    fraction: float = 0.3
    partition: PartitionKind = "classes"
    classes_per_client: int = 3
    alpha: float = 0.5
    samples: int = 200
    reuse: bool = False
    budget: float = 0.5
    budget_kind: BudgetKind = PersonalizationSettings.budget_kind
    signal: Signal = "entropy"
    probes: int = PersonalizationSettings.probes
    final_probes: int = 0
    first_probes: int = FIRST_PROBES
    solver: Solver = PersonalizationSettings.solver
    steps: int = PersonalizationSettings.steps
    step_probes: int = PersonalizationSettings.step_probes
    tolerance: float = PersonalizationSettings.tolerance
    layer_limit: float = PersonalizationSettings.layer_limit
    recovery: Recovery = PersonalizationSettings.recovery
    refit_samples: int = PersonalizationSettings.refit_samples
    tune_first: int = PersonalizationSettings.tune_first
    training_steps: int = PersonalizationSettings.training_steps
    adapters: int = PersonalizationSettings.adapters
    training_precision: Precision = PersonalizationSettings.training_precision
    adapt_head: bool = PersonalizationSettings.adapt_head
    strategy: str = PrecisionWeightedMean.name
    secure_aggregation: SecureMode = ServerSettings.secure_aggregation
    cohort_size: int = ServerSettings.cohort_size
    dp: DpMode = PrivacySettings.mode
    epsilon: float = PrivacySettings.epsilon
    delta: float = PrivacySettings.delta
    clip: float = PrivacySettings.clip
    epsilon_budget: float | None = None
    seed: int = 0
    data: Path | None = None
    task: TaskName | None = None
    windows: int = TextBatch.windows
    window_tokens: int = TextBatch.tokens
    vocabulary: int | None = None
    model: str | None = None
    engine: Engine = "in-process"
    resume: bool = False
    record: bool = False
    canaries: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense before anything is written. Raises UserError."""
        if self.clients < 1 or self.rounds < 0:
            raise UserError(f"{self.clients} clients, {self.rounds} rounds: expected 1 or more and 0 or more")
        if not 0.0 < self.fraction <= 1.0:
            raise UserError(f"fraction {self.fraction}: expected a share above 0 and at most 1")
        if self.engine not in get_args(Engine):
            raise UserError(f"engine {self.engine!r}: expected one of {', '.join(get_args(Engine))}")
        if self.final_probes < 0 or self.first_probes < 0 or self.seed < 0:
            raise UserError("final probes, first probes and seed: expected 0 or more")
        if self.record and self.engine == "ray":
            raise UserError("--record: under Ray messages never are bytes in one place; leave out --engine ray")
        if self.epsilon_budget is not None and not self.epsilon_budget > 0:
            raise UserError(f"--epsilon-budget {self.epsilon_budget}: expected a number above 0")
        if self.epsilon_budget is not None and self.engine == "ray":
            raise UserError("--epsilon-budget: under Ray a device has no settings of its own; leave out --engine ray")
        if not 0 <= self.canaries <= self.clients:
            raise UserError(f"{self.canaries} canaries: expected 0 to the number of clients, {self.clients}")
        TextBatch(windows=self.windows, tokens=self.window_tokens)
        make_strategy(self.strategy)
        check_secure(self.secure_aggregation, self.cohort_size, self.strategy)
        privacy = PrivacySettings(mode=self.dp, epsilon=self.epsilon, delta=self.delta, clip=self.clip)
        privacy.check_run(strategy=self.strategy, secure=self.secure_aggregation, probes=self.probes)
        PersonalizationSettings(
            budget=self.budget,
            budget_kind=self.budget_kind,
            signal=self.signal,
            probes=self.probes,
            solver=self.solver,
            steps=self.steps,
            step_probes=self.step_probes,
            tolerance=self.tolerance,
            layer_limit=self.layer_limit,
            recovery=self.recovery,
            vocabulary=self.vocabulary or 0,
            refit_samples=self.refit_samples,
            tune_first=self.tune_first,
            training_steps=self.training_steps,
            adapters=self.adapters,
            training_precision=self.training_precision,
        )

    def run_config(self) -> dict[str, bool | int | float | str]:
        """Return the same as Flower's run configuration: keys with hyphens, absolute paths, no None."""
        own: dict[str, Any] = {key.replace("_", "-"): value for key, value in asdict(self).items()}
        own["num-rounds"], own["out-dir"] = own.pop("rounds"), str(own.pop("out").absolute())
        own["model"] = model_folder(self.model)
        own["task"], own["vocabulary"] = self.task or "", self.vocabulary or 0
        own["data"] = "" if self.data is None else str(self.data.absolute())
        own["min-nodes"] = own.pop("clients")
        if self.dp == "off":
            for key in ("epsilon", "delta", "clip"):
                del own[key]
        own["private-data"] = _PRIVATE_DATA
        del own["record"]  # changes nothing that the run computes
        if self.epsilon_budget is None:
            del own["epsilon-budget"]
        if not self.canaries:
            del own["canaries"]
        return own
