"""The same fleet under Flower's own simulation engine, which runs clients in Ray's worker processes."""

import logging
import os

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

ConfigValue = bool | int | float | str
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def run_under_ray(server_app: ServerApp, client_app: ClientApp, *, clients: int, cpus_per_client: int = 1) -> None:
    """Run both apps to the end. Whatever the server raises comes through.

    The apps must bring their configuration with them, because the engine has none for apps that are handed over.
    Node ids are drawn anew in every run, so which clients a round samples differs from the in-process engine's.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    from flwr.simulation import run_simulation

    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what Flower says about its own deprecations is not for our users
    try:
        run_simulation(
            server_app,
            client_app,
            num_supernodes=clients,
            backend_config={
                "client_resources": {"num_cpus": cpus_per_client, "num_gpus": 0.0},
                "init_args": {"logging_level": "error", "log_to_driver": False},
            },
        )
    finally:
        logger.setLevel(level)
