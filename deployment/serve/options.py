"""The options of `fedsieve serve`, in groups. What a group needs is imported where it is used: `--help` is quick."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from personalization.data.tasks import TextBatch
from personalization.settings import RECOVERY_WORDS, BudgetKind, PersonalizationSettings, Precision, Recovery
from strategies.secure_aggregation.settings import SMALLEST_COHORT

SecureMode = Literal["auto", "sum", "cohorts", "off"]

FleetArgument = Annotated[Path, typer.Argument(help="Folder of the fleet, as `fedsieve enroll` made it.")]
ModelOption = Annotated[
    str,
    typer.Option(help="Pre-trained transformer: a local folder, a Hugging Face name, or `smollm2` (after `make llm`)."),
]
StateOption = Annotated[
    Path | None,
    typer.Option(help="Folder for what the server keeps.", show_default="FLEET-state, beside the fleet's folder"),
]
SeedOption = Annotated[int, typer.Option(help="Start of all random numbers.")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """When runs start, how long they are, and which devices a round needs."""

    rounds: Annotated[
        int, typer.Option(help="Rounds of a run; after them every connected device gets its personal model.")
    ] = 3
    every: Annotated[
        str | None,
        typer.Option(help="Start a run this often: 30s, 5m, 6h, 1d.", show_default="one run, then stay up"),
    ] = None
    once: Annotated[bool, typer.Option("--once", help="End after one run: exit code 0 if it was completed.")] = False
    fraction: Annotated[float, typer.Option(help="Share of the connected devices that takes part in a round.")] = 1.0
    quorum: Annotated[float, typer.Option(help="Share of those asked that must reply for a round to count.")] = 0.5
    deadline: Annotated[float, typer.Option(help="Seconds that a round may take; later replies are left out.")] = 3600.0
    min_nodes: Annotated[
        int | None,
        typer.Option(
            help="Devices that must be connected before a round begins.",
            show_default="as many as a sum takes, 1 where fewer are enrolled",
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return them as `ServeSettings` takes them. Raises UserError."""
        from deployment.serve.settings import parse_interval

        return asdict(self) | {"every": None if self.every is None else parse_interval(self.every)}


@dataclass(frozen=True, kw_only=True)
class PersonalizingOptions:
    """What devices do that say nothing else."""

    budget: Annotated[
        float, typer.Option(help="Share that a personal model may keep of what --budget-kind counts, above 0 to 1.")
    ] = 0.5
    budget_kind: Annotated[
        BudgetKind,
        typer.Option(
            help="What --budget is a share of: the blocks' weights; or the whole model's bytes, multiply-accumulates "
            "(macs), or latency as each device measures it."
        ),
    ] = PersonalizationSettings.budget_kind
    probes: Annotated[int, typer.Option(help="Masked forward passes that a device measures in each round.")] = 6
    final_probes: Annotated[
        int,
        typer.Option(
            help="Probes once more before the personal model after the last round; 0: it is made of what is known."
        ),
    ] = 0
    recovery: Annotated[
        Recovery,
        typer.Option(help=f"What makes up for a cut, for devices without a --recovery of their own: {RECOVERY_WORDS}."),
    ] = PersonalizationSettings.recovery
    refit_samples: Annotated[
        int,
        typer.Option(
            help="Windows of private text that the final cut of a language model is made on, where a device has "
            "more than `--windows`: slower, and better; 0: those alone."
        ),
    ] = PersonalizationSettings.refit_samples
    tune_first: Annotated[
        int,
        typer.Option(
            help="Batches on which a device tunes the whole model to its labels, of text the next tokens, before its "
            "final cut; 0: none on any device."
        ),
    ] = PersonalizationSettings.tune_first
    training_steps: Annotated[
        int, typer.Option(help="Batches of training, with a recovery that trains; 0: none on any device.")
    ] = PersonalizationSettings.training_steps
    adapters: Annotated[
        int,
        typer.Option(
            help="Train low-rank adapters (LoRA) of this rank instead of the weights; they are merged in the end. "
            "Devices need the extra `adapters`. 0: train the weights."
        ),
    ] = PersonalizationSettings.adapters
    training_precision: Annotated[
        Precision,
        typer.Option(help="Of the passes of training; `bfloat16` is faster on processors that know it."),
    ] = PersonalizationSettings.training_precision
    windows: Annotated[
        int | None,
        typer.Option(
            help="Windows of private text that a device measures on, with a language model.",
            show_default=str(TextBatch.windows),
        ),
    ] = None
    window_tokens: Annotated[
        int | None, typer.Option(help="Tokens in a window of text.", show_default=str(TextBatch.tokens))
    ] = None
    vocabulary: Annotated[
        int | None,
        typer.Option(
            help="Cut the vocabulary of a language model: each device keeps at most so many tokens, those that its "
            "text uses and the model expects there. Other text is spelled out in more tokens. -1: as many as leave "
            "tokens and blocks the best shares of a budget of bytes, by each device's text.",
            show_default="whole vocabulary",
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return them as `ServeSettings` takes them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """How statistics become one, and what the server sees of them."""

    strategy: Annotated[
        str, typer.Option(help="How the server makes one out of the devices' statistics; see docs/strategies.md.")
    ] = "precision-weighted-mean"
    secure_aggregation: Annotated[
        SecureMode,
        typer.Option(
            help="What the server learns in a round: the sum of all statistics alone (`sum`), the sums of random "
            "`cohorts`, for strategies that tell several apart, whichever of the two the strategy needs (`auto`), or "
            "each device's statistics (`off`)."
        ),
    ] = "auto"
    smallest_cohort: Annotated[
        int, typer.Option(help="Fewest devices of a sum, 3 or more; a round of fewer teaches the server nothing.")
    ] = SMALLEST_COHORT

    def settings(self) -> dict[str, Any]:
        """Return them as `ServeSettings` takes them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """What noise sums get."""

    dp: Annotated[
        Literal["off", "central", "distributed"],
        typer.Option(
            help="Differential privacy: this server adds noise to the sum of a round (`central`), or every device adds "
            "a share before its statistics are masked (`distributed`, needs --secure-aggregation)."
        ),
    ] = "off"
    epsilon: Annotated[
        float, typer.Option(help="With --dp: what a device gives away in a run at most; smaller is more private.")
    ] = 4.0
    delta: Annotated[float, typer.Option(help="With --dp: the chance that epsilon does not hold.")] = 1e-5
    clip: Annotated[float, typer.Option(help="With --dp: how far one device can move the sum.")] = 0.3

    def settings(self) -> dict[str, Any]:
        """Return them as `ServeSettings` takes them. Raises UserError."""
        from strategies.privacy.settings import PrivacySettings

        own = PrivacySettings(mode=self.dp, epsilon=self.epsilon, delta=self.delta, clip=self.clip)
        return {"privacy": own}


@dataclass(frozen=True, kw_only=True)
class AddressOptions:
    """Where the server listens."""

    host: Annotated[str, typer.Option(help="Address to listen on for devices; 0.0.0.0 is every IPv4 one.")] = "0.0.0.0"
    port: Annotated[int | None, typer.Option(help="Port to listen on for devices.", show_default="the fleet's")] = None
    superlink_port: Annotated[int, typer.Option(help="Loopback port of Flower's SuperLink.")] = 9443
    status: Annotated[str, typer.Option(help="HOST:PORT of the status page.")] = "127.0.0.1:8081"
    no_status: Annotated[bool, typer.Option("--no-status", help="Leave the status page out.")] = False

    def settings(self, fleet: Path) -> dict[str, Any]:
        """Return them as `ServeSettings` takes them. fleet: its folder. Raises UserError."""
        from deployment.fleet import parse_address, read_fleet

        return {
            "host": self.host,
            "port": self.port or parse_address(read_fleet(fleet).server)[1],
            "superlink_port": self.superlink_port,
            "status": None if self.no_status else parse_address(self.status),
        }
