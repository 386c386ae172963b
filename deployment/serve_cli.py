"""`fedsieve serve`, for the command line. What it needs is imported inside it: `--help` is quick."""

import typer
from rich.console import Console

from deployment.serve.options import (
    AddressOptions,
    FleetArgument,
    LearningOptions,
    ModelOption,
    NoiseOptions,
    PersonalizingOptions,
    RunOptions,
    SeedOption,
    StateOption,
)
from personalization.errors import UserError
from personalization.model_files.known_models import named_model
from personalization.system.option_groups import grouped


@grouped
def serve(
    *,
    fleet: FleetArgument,
    model: ModelOption,
    state: StateOption = None,
    runs: RunOptions,
    personalizing: PersonalizingOptions,
    learning: LearningOptions,
    noise: NoiseOptions,
    seed: SeedOption = 0,
    addresses: AddressOptions,
) -> None:
    """Serve a fleet: SuperLink, reverse proxy, status page, and rounds on a schedule, until SIGTERM or Ctrl-C.

    To begin: fedsieve serve FLEET --model MODEL --every 6h

    Devices that are enrolled or revoked meanwhile are admitted or refused within seconds. Started again with the same
    --state it goes on with what the fleet has learned, and with a run that was cut off.
    """
    from deployment.serve.log import make_log
    from deployment.serve.service import serve as run
    from deployment.serve.settings import ServeSettings

    if not model:
        raise UserError("--model: give a folder or a Hugging Face name")
    folder = fleet.absolute()
    settings = ServeSettings(
        fleet=folder,
        state=(state or folder.with_name(f"{folder.name}-state")).absolute(),
        # What runs the model has another working directory.
        model=named_model(model),
        seed=seed,
        **addresses.settings(folder),
        **runs.settings(),
        **personalizing.settings(),
        **learning.settings(),
        **noise.settings(),
    )
    raise typer.Exit(run(settings, make_log(Console(stderr=True))))
