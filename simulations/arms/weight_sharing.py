"""What both arms that share weights begin with: rounds of FedAvg on the whole model."""

from dataclasses import replace

from flwr.app import ConfigRecord

from client.settings import derive_seed
from simulations.arms.averaging import Averaging
from simulations.arms.base import World
from simulations.arms.training import Training, Weights, read_weights, train, with_weights
from simulations.fleet_settings import FleetSettings


def average_dense(world: World, settings: FleetSettings, averaging: Averaging, training: Training) -> World:
    """Return the world with its backbone trained by FedAvg: as many rounds, of the same clients, as a fleet has.

    In each round the clients that are asked train all weights of the dense model on their labels.
    """
    model = world.backbone.model

    def work(client: int, weights: Weights, config: ConfigRecord) -> Weights:
        local = with_weights(model, weights)
        seed = derive_seed(settings.seed, str(client), int(str(config["server-round"])))
        train(local, world.samples(client), training, seed=seed)
        return read_weights(local)

    start = read_weights(model)
    weights = averaging.rounds(start, work, clients=world.clients, rounds=settings.rounds, fraction=settings.fraction)
    return replace(world, backbone=replace(world.backbone, model=with_weights(model, weights)))
