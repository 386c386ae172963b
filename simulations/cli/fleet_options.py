"""The options of `fedsieve simulate` that no other command has, in groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from personalization.settings import PersonalizationSettings
from simulations.cli.options import ModelOption, SeedOption


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """Who the devices are, and how often they are asked."""

    clients: Annotated[int, typer.Option(help="Simulated devices; of text, the first so many speakers.")] = 30
    rounds: Annotated[int, typer.Option(help="Rounds of the fleet before everybody gets a personal model.")] = 3
    fraction: Annotated[float, typer.Option(help="Share of the devices that take part in a round.")] = 0.3
    first_probes: Annotated[
        int, typer.Option(help="Probes of a device that has measured nothing itself before it makes its final model.")
    ] = PersonalizationSettings.probes


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which model, and who holds what."""

    model: ModelOption = None
    data: Annotated[
        Path | None,
        typer.Option(
            help="Class folders of images, idx files, or .npz; or a folder with one folder of text for each speaker.",
            show_default="bundled Fashion-MNIST subset",
        ),
    ] = None
    partition: Annotated[
        str,
        typer.Option(
            help="Who holds what: `classes` (a few classes each), `dirichlet` (uneven proportions) or `natural` "
            "(one folder of --data for each device; text is always shared out so)."
        ),
    ] = "classes"
    classes_per_client: Annotated[int, typer.Option(help="Classes on each device, with `--partition classes`.")] = 3
    alpha: Annotated[float, typer.Option(help="Evenness of `--partition dirichlet`: smaller is more uneven.")] = 0.5
    samples: Annotated[int, typer.Option(help="Private images of each device.")] = 200
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Let devices hold the same images, for a fleet larger than the data.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """How statistics become one, and what the server sees of them."""

    strategy: Annotated[
        str,
        typer.Option(
            help="How the server makes one out of the clients' statistics, [PRE+]NAME[:KEY=VALUE...][+POST]: "
            "for instance `median` or `nnm+median`; docs/strategies.md lists them."
        ),
    ] = "precision-weighted-mean"
    secure_aggregation: Annotated[
        str,
        typer.Option(
            help="What the server learns in a round: each device's statistics (`off`), their sum alone (`sum`), or the "
            "sums of random `cohorts`, for strategies that tell vectors apart."
        ),
    ] = "off"
    cohort_size: Annotated[
        int, typer.Option(help="Fewest devices of a cohort, with `--secure-aggregation cohorts`.")
    ] = 10


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """What noise sums get."""

    dp: Annotated[
        str,
        typer.Option(
            help="Differential privacy: `central`, the server adds noise to the sum of a round; `distributed`, every "
            "device adds a share before its statistics are masked (needs --secure-aggregation); `off`."
        ),
    ] = "off"
    epsilon: Annotated[
        float, typer.Option(help="With --dp: what a device gives away in this run at most; smaller is more private.")
    ] = 4.0
    delta: Annotated[float, typer.Option(help="With --dp: the chance that epsilon does not hold.")] = 1e-5
    clip: Annotated[
        float,
        typer.Option(help="With --dp: how far one device can move the sum; longer statistics are shortened to it."),
    ] = 0.3
    epsilon_budget: Annotated[
        float | None,
        typer.Option(
            help="What each device gives away in its life at most, as epsilon at delta 1e-5: it sits out a round that "
            "would exceed it, and one without noise.",
            show_default="no limit",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run goes, and what is kept of it."""

    seed: SeedOption = 0
    engine: Annotated[str, typer.Option(help="`in-process`, or `ray` for Flower's simulation engine.")] = "in-process"
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, journal and models.", show_default="runs/<date and time>")
    ] = None
    record: Annotated[
        bool,
        typer.Option("--record", help="Keep every encoded message in the run's folder, for `fedsieve audit`."),
    ] = False
    canaries: Annotated[
        int,
        typer.Option(
            help="Devices that get one image of noise, or one sentence of random letters, among their own data, for "
            "`fedsieve audit` to look for."
        ),
    ] = 0
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False
