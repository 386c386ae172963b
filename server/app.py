"""The Flower ServerApp: `flwr run` starts it, and the simulations start the same one in process."""

from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.private_rounds import ServerNoise, system_noise
from server.rounds import FleetServer, OnRound
from server.settings import ConfigValue, read_settings
from strategies.registry import make_strategy


def make_app(
    *,
    config: Mapping[str, ConfigValue] | None = None,
    on_round: OnRound | None = None,
    noise: ServerNoise = system_noise,
    load: Callable[[str], Any] | None = None,
) -> ServerApp:
    """Return the ServerApp.

    config: values that come before those of Flower's run configuration. on_round: called with each round's record.
    noise: what the noise of a round is drawn from, by its plan; as a rule the operating system, for simulations a seed.
    load: reads the model; as a rule `personalization.model_files.backbone.load_backbone`.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        # Imported here, so that loading the app stays quick where only its existence is asked for.
        from personalization.model_files.backbone import load_backbone
        from server.backbone import load_generic_backbone

        run_config: dict[str, Any] = {**context.run_config, **(config or {})}
        settings = read_settings(run_config)
        strategy = make_strategy(settings.strategy)
        backbone = load_generic_backbone(settings.model, settings.levels, load=load or load_backbone)
        server = FleetServer(settings, backbone, strategy, run_config=run_config, on_round=on_round, noise=noise)
        server.run(punctual(grid))

    return app


def punctual(grid: Grid) -> Grid:
    """Return a grid that keeps deadlines: Flower's own of a deployed server is wrapped, all others are as they are."""
    from flwr.superlink.grid.http_grid import HttpGrid

    from server.punctual_grid import PunctualGrid

    return PunctualGrid(grid) if isinstance(grid, HttpGrid) else grid


app = make_app()
