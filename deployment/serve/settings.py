"""What `fedsieve serve` is told."""

import re
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from deployment.enrolment_key import ENROLMENT
from deployment.serve.secure_mode import ChosenMode, secure_mode
from personalization.data.tasks import TextBatch
from personalization.errors import UserError
from personalization.settings import BudgetKind, PersonalizationSettings, Precision, Recovery
from server.settings import ConfigValue, SecureMode, ServerSettings, read_settings
from strategies.privacy.settings import PrivacySettings
from strategies.secure_aggregation.settings import SMALLEST_COHORT

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SHORTEST = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """One server.

    fleet, state: folders of the fleet's keys and of what the server keeps, absolute. model: folder (absolute) or name
    on the hub. host, port: public address. superlink_port: loopback port of the SuperLink. status: host and port of the
    status page, None for none. every: time between the starts of runs, None for one run. once: end after one run.
    secure_aggregation: `auto` leaves it to the strategy. smallest_cohort: fewest devices of a sum. min_nodes: None for
    as many as a sum takes, see `Sums`. budget_kind, recovery, refit_samples, tune_first, training_steps, adapters,
    training_precision, windows, window_tokens, vocabulary: what devices do that say nothing else; windows of text None
    for the default, vocabulary None for all tokens, and both for a model that sees images. The others are those of a
    run, see `ServerSettings`.
    """

    fleet: Path
    state: Path
    model: str
    host: str
    port: int
    superlink_port: int
    status: tuple[str, int] | None
    every: timedelta | None = None
    once: bool = False
    rounds: int = 3
    fraction: float = 1.0
    quorum: float = 0.5
    deadline: float = 3600.0
    min_nodes: int | None = None
    budget: float = 0.5
    budget_kind: BudgetKind = PersonalizationSettings.budget_kind
    probes: int = 6
    final_probes: int = 0
    recovery: Recovery = PersonalizationSettings.recovery
    refit_samples: int = PersonalizationSettings.refit_samples
    tune_first: int = PersonalizationSettings.tune_first
    training_steps: int = PersonalizationSettings.training_steps
    adapters: int = PersonalizationSettings.adapters
    training_precision: Precision = PersonalizationSettings.training_precision
    windows: int | None = None
    window_tokens: int | None = None
    vocabulary: int | None = None
    strategy: str = "precision-weighted-mean"
    secure_aggregation: ChosenMode = "auto"
    smallest_cohort: int = SMALLEST_COHORT
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        if self.every is not None and self.once:
            raise UserError("--every and --once: give one of them; --once ends after one run")
        ports = [("--port", self.port), ("--superlink-port", self.superlink_port)]
        if self.status is not None:
            ports.append(("--status", self.status[1]))
        for name, port in ports:
            if not 1 <= port <= 65535:
                raise UserError(f"{name} {port}: expected a port from 1 to 65535")
        if len({port for _, port in ports}) < len(ports):
            raise UserError(f"{', '.join(f'{name} {port}' for name, port in ports)}: give each a port of its own")
        if self.deadline <= 0:
            raise UserError(f"--deadline {self.deadline:g}: expected seconds above 0")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: expected 0 or more")
        PersonalizationSettings(
            budget_kind=self.budget_kind,
            recovery=self.recovery,
            vocabulary=self.vocabulary or 0,
            refit_samples=self.refit_samples,
            tune_first=self.tune_first,
            training_steps=self.training_steps,
            adapters=self.adapters,
            training_precision=self.training_precision,
        )
        self.text_batch()
        self.server_settings()

    def text_batch(self) -> TextBatch:
        """Return how much text a device takes that says nothing else. Raises UserError."""
        asked = {"windows": self.windows, "tokens": self.window_tokens}
        return TextBatch(**{key: value for key, value in asked.items() if value is not None})

    @property
    def journal_dir(self) -> Path:
        """The folder of the journal."""
        return self.state / "run"

    @property
    def secure_mode(self) -> SecureMode:
        """What the server learns. Raises UserError for a strategy that works on no sums."""
        return secure_mode(self.secure_aggregation, self.strategy)

    def run_config(self) -> dict[str, ConfigValue]:
        """Return the run configuration that every run of this server has."""
        batch = self.text_batch()
        return {
            "num-rounds": self.rounds,
            "fraction": self.fraction,
            "quorum": self.quorum,
            "deadline": self.deadline,
            "min-nodes": 1 if self.min_nodes is None else self.min_nodes,
            "strategy": self.strategy,
            "out-dir": str(self.journal_dir),
            "journal-dir": str(self.journal_dir),
            "extend": True,
            "signing-key-file": str(self.fleet / "signing-key.json"),
            "secure-aggregation": self.secure_mode,
            "cohort-size": self.smallest_cohort,
            "smallest-cohort": self.smallest_cohort,
            "enrolment-file": str(self.fleet / ENROLMENT),
            "seed": self.seed,
            "model": self.model,
            "budget": self.budget,
            "budget-kind": self.budget_kind,
            "probes": self.probes,
            "final-probes": self.final_probes,
            "recovery": self.recovery,
            "refit-samples": self.refit_samples,
            "tune-first": self.tune_first,
            "training-steps": self.training_steps,
            "adapters": self.adapters,
            "training-precision": self.training_precision,
            "windows": batch.windows,
            "window-tokens": batch.tokens,
            "vocabulary": self.vocabulary or 0,
            **self.privacy.to_config(),
        }

    def server_settings(self) -> ServerSettings:
        """Return what a run makes of its configuration. Raises UserError."""
        return read_settings(self.run_config())

    def public(self) -> dict[str, Any]:
        """Return the settings for `serve.json`: no secret is among them."""
        values = asdict(self)
        values["secure_aggregation"] = self.secure_mode
        values["fleet"], values["state"] = str(self.fleet), str(self.state)
        values["every"] = None if self.every is None else self.every.total_seconds()
        values["status"] = None if self.status is None else f"{self.status[0]}:{self.status[1]}"
        return values


def parse_interval(text: str) -> timedelta:
    """Return the time that 30s, 5m, 6h or 1d stands for, at least 10 s. Raises UserError."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    interval = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if interval < _SHORTEST:
        raise UserError(f"--every {text}: expected a number and s, m, h or d, such as 30s, 5m, 6h or 1d, at least 10s")
    return interval
