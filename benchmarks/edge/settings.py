"""What is shown: how many devices, how many rounds, and what is killed on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.serve.settings import ServeSettings
from personalization.data.tasks import TextBatch
from personalization.errors import UserError
from personalization.settings import PersonalizationSettings, Recovery

NAMES = ("kitchen", "hall", "attic", "cellar", "garage", "porch", "study", "shed")


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """A demonstration.

    out: folder for everything, a new one. devices: how many. samples: private images of each. data: folder of speakers,
    for a language model, of which each device takes `windows` of `window_tokens` and keeps at most `vocabulary` tokens.
    recovery, training_steps: what makes up for a cut. deadline: seconds that a round may take. kill_device_in,
    kill_server_in: the round in which the first device and the server are killed, None for never. seed: of the data, of
    the fleet and of the simulation beside it. The server learns secure sums over all devices; one of four may be away.
    """

    out: Path
    devices: int = 4
    rounds: int = 3
    samples: int = 200
    data: Path | None = None
    windows: int = TextBatch.windows
    window_tokens: int = TextBatch.tokens
    vocabulary: int | None = None
    recovery: Recovery = PersonalizationSettings.recovery
    training_steps: int = PersonalizationSettings.training_steps
    budget: float = 0.5
    probes: int = 6
    deadline: float = 90.0
    kill_device_in: int | None = 2
    kill_server_in: int | None = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        if not 3 <= self.devices <= len(NAMES):
            raise UserError(f"{self.devices} devices: expected 3 to {len(NAMES)}")
        kills = [number for number in (self.kill_device_in, self.kill_server_in) if number is not None]
        if self.rounds < 1 or any(not 1 <= number <= self.rounds for number in kills):
            raise UserError(
                f"{self.rounds} rounds, kills in {kills}: expected 1 round or more, and kills in one of them"
            )
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"{self.out}: holds something; choose a new folder")

    @property
    def names(self) -> tuple[str, ...]:
        """The devices' names."""
        return NAMES[: self.devices]

    @property
    def text(self) -> dict[str, int]:
        """How much text a device takes, as in a run's configuration."""
        return {"windows": self.windows, "window-tokens": self.window_tokens}

    @property
    def fleet(self) -> Path:
        """The folder of the fleet's keys."""
        return self.out / "fleet"

    @property
    def state(self) -> Path:
        """The folder of the server's state."""
        return self.out / "server"

    def serve(self, *, model: Path, port: int, superlink_port: int, status_port: int) -> ServeSettings:
        """Return what the server is started with."""
        return ServeSettings(
            fleet=self.fleet.absolute(),
            state=self.state.absolute(),
            model=str(model.absolute()),
            host="127.0.0.1",
            port=port,
            superlink_port=superlink_port,
            status=("127.0.0.1", status_port),
            rounds=self.rounds,
            deadline=self.deadline,
            min_nodes=self.devices,
            secure_aggregation="sum",
            smallest_cohort=self.devices,
            budget=self.budget,
            probes=self.probes,
            recovery=self.recovery,
            training_steps=self.training_steps,
            vocabulary=self.vocabulary,
            windows=None if self.data is None else self.windows,
            window_tokens=None if self.data is None else self.window_tokens,
            seed=self.seed,
        )


def serve_arguments(settings: ServeSettings) -> list[str]:
    """Return the same as arguments of `fedsieve serve`."""
    values: dict[str, Any] = {
        "model": settings.model,
        "state": settings.state,
        "host": settings.host,
        "port": settings.port,
        "superlink-port": settings.superlink_port,
        "rounds": settings.rounds,
        "deadline": settings.deadline,
        "min-nodes": settings.min_nodes,
        "secure-aggregation": settings.secure_aggregation,
        "smallest-cohort": settings.smallest_cohort,
        "budget": settings.budget,
        "probes": settings.probes,
        "recovery": settings.recovery,
        "training-steps": settings.training_steps,
        "adapters": settings.adapters,
        "training-precision": settings.training_precision,
        "seed": settings.seed,
    }
    if settings.windows is not None:
        values |= {"windows": settings.windows, "window-tokens": settings.window_tokens}
    if settings.vocabulary is not None:
        values["vocabulary"] = settings.vocabulary
    if settings.status is not None:
        values["status"] = f"{settings.status[0]}:{settings.status[1]}"
    options = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    return ["serve", str(settings.fleet), *options]
