"""What the server is told through Flower's run configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from personalization.errors import UserError
from personalization.settings import PersonalizationSettings
from server.planning import PlanningSettings
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.registry import make_strategy
from strategies.secure_aggregation.settings import SecureAggregationSettings

ConfigValue = bool | int | float | str
SecureMode = Literal["off", "sum", "cohorts"]


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """One run.

    model: folder or hub name of the backbone.
    rounds, fraction: how many rounds, and the share of the connected clients that each asks.
    quorum: share of those asked that must reply for a round to count. deadline: seconds that a round may take.
    min_nodes, node_deadline: how many clients must be connected, and how long (seconds) to wait for them.
    budget, probes, final_probes: what the plan asks of clients in rounds and in the final pass.
    out: the folder that takes journal and results. resume: go on from its journal.
    extend: go on from the journal, if there is one, and where its run is finished add `rounds` rounds and another final
    pass. journal_dir: the folder of the journal, None for `server` in `out`.
    signing_key_file: the key that plans are signed with; None sends plans without a signature.
    secure_aggregation: `off` takes each client's vector; `sum` learns the sum of a round's vectors alone, `cohorts`
    those of random cohorts of at least `cohort_size` clients. smallest_cohort: fewest clients that are summed.
    enrolment_file: who enrols the fleet's clients.
    """

    model: str
    out: Path
    rounds: int = 3
    fraction: float = 0.3
    quorum: float = 0.5
    deadline: float = 3600.0
    min_nodes: int = 1
    node_deadline: float = 600.0
    budget: float = 0.5
    probes: int = 6
    final_probes: int = 0
    strategy: str = "precision-weighted-mean"
    seed: int = 0
    resume: bool = False
    extend: bool = False
    journal_dir: Path | None = None
    signing_key_file: Path | None = None
    secure_aggregation: SecureMode = "off"
    cohort_size: int = 10
    smallest_cohort: int = SecureAggregationSettings.smallest_cohort
    enrolment_file: Path | None = None
    levels: int = len(PersonalizationSettings().levels)
    planning: PlanningSettings = field(default_factory=PlanningSettings)

    def __post_init__(self) -> None:
        """Refuse values that make no sense, with a line that says what was expected."""
        for name, value, fewest in (
            ("rounds", self.rounds, 0),
            ("probes", self.probes, 0),
            ("final-probes", self.final_probes, 0),
            ("min-nodes", self.min_nodes, 1),
        ):
            if value < fewest:
                raise UserError(f"{name} {value}: expected {fewest} or more")
        for name, share in (("fraction", self.fraction), ("budget", self.budget), ("quorum", self.quorum)):
            if not 0.0 < share <= 1.0:
                raise UserError(f"{name} {share}: expected a share above 0 and at most 1")
        check_secure(self.secure_aggregation, self.cohort_size, self.strategy, smallest=self.smallest_cohort)
        if self.secure_aggregation != "off" and self.enrolment_file is None:
            raise UserError("enrolment-file is not set: secure sums need the fleet's enrolment.json")


def check_secure(
    mode: str, cohort_size: int, strategy: str, *, smallest: int = SecureAggregationSettings.smallest_cohort
) -> None:
    """Raise UserError for a way of summing that there is not, or that `strategy` can't go with."""
    if mode not in get_args(SecureMode):
        raise UserError(f"secure-aggregation {mode!r}: expected one of {', '.join(get_args(SecureMode))}")
    if mode == "off":
        return
    SecureAggregationSettings(smallest_cohort=smallest)
    if cohort_size < smallest and mode == "cohorts":
        raise UserError(f"cohort-size {cohort_size}: expected {smallest} or more; clients take part in nothing smaller")
    made = make_strategy(strategy)
    if made.groups > 1:
        raise UserError(f"secure-aggregation {mode}: {strategy} puts each client into a group and needs its vector")
    if mode == "sum" and made.spec != PrecisionWeightedMean.name:
        raise UserError(
            f"secure-aggregation sum: a sum gives {PrecisionWeightedMean.name}, and {strategy} needs to tell clients "
            "apart; choose one of them, or secure-aggregation cohorts"
        )


def read_settings(config: Mapping[str, ConfigValue]) -> ServerSettings:
    """Return the settings in a run configuration (keys with hyphens). Raises UserError that names the key."""
    if not config.get("out-dir"):
        raise UserError("out-dir is not set: give an absolute folder, e.g. -c 'out-dir=\"/var/lib/fedsieve/run-1\"'")
    if not config.get("model"):
        raise UserError("model is not set: give the folder of a model (an absolute path) or its name on the hub")
    planning = PlanningSettings(
        decay=_number(config, "decay", PlanningSettings.decay),
        drop_share=_number(config, "drop-share", PlanningSettings.drop_share),
        drop_clients=_integer(config, "drop-clients", PlanningSettings.drop_clients),
        restore_every=_integer(config, "restore-every", PlanningSettings.restore_every),
    )
    return ServerSettings(
        model=str(config["model"]),
        out=Path(str(config["out-dir"])),
        rounds=_integer(config, "num-rounds", ServerSettings.rounds),
        fraction=_number(config, "fraction", ServerSettings.fraction),
        quorum=_number(config, "quorum", ServerSettings.quorum),
        deadline=_number(config, "deadline", ServerSettings.deadline),
        min_nodes=_integer(config, "min-nodes", ServerSettings.min_nodes),
        node_deadline=_number(config, "node-deadline", ServerSettings.node_deadline),
        budget=_number(config, "budget", ServerSettings.budget),
        probes=_integer(config, "probes", ServerSettings.probes),
        final_probes=_integer(config, "final-probes", ServerSettings.final_probes),
        strategy=str(config.get("strategy", ServerSettings.strategy)),
        seed=_integer(config, "seed", ServerSettings.seed),
        resume=bool(config.get("resume", False)),
        extend=bool(config.get("extend", False)),
        journal_dir=_path(config, "journal-dir"),
        signing_key_file=_path(config, "signing-key-file"),
        secure_aggregation=cast(SecureMode, str(config.get("secure-aggregation", ServerSettings.secure_aggregation))),
        cohort_size=_integer(config, "cohort-size", ServerSettings.cohort_size),
        smallest_cohort=_integer(config, "smallest-cohort", ServerSettings.smallest_cohort),
        enrolment_file=_path(config, "enrolment-file"),
        planning=planning,
    )


def _path(config: Mapping[str, ConfigValue], key: str) -> Path | None:
    return Path(str(config[key])) if config.get(key) else None


def _number(config: Mapping[str, ConfigValue], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool | str):
        raise UserError(f"{key} {value!r}: expected a number")
    return float(value)


def _integer(config: Mapping[str, ConfigValue], key: str, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{key} {value!r}: expected a whole number")
    return value
