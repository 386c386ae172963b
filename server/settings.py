"""What the server is told through Flower's run configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from personalization.errors import UserError
from personalization.settings import PersonalizationSettings
from server.planning import PlanningSettings

ConfigValue = bool | int | float | str


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
        journal_dir=Path(str(config["journal-dir"])) if config.get("journal-dir") else None,
        signing_key_file=Path(str(config["signing-key-file"])) if config.get("signing-key-file") else None,
        planning=planning,
    )


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
