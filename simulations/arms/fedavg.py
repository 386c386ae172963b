"""Federated averaging of weights, and one compressed model for all."""

import tempfile
from dataclasses import asdict
from pathlib import Path

from torch import nn

from personalization.sensing.measurement import entropy_increase
from simulations.arms.averaging import Averaging
from simulations.arms.base import Arm, ArmResult, Row, World, client_row
from simulations.arms.masked_average import MaskedAverage
from simulations.arms.models import private_logits, with_fitted_head
from simulations.arms.one_cut import vote
from simulations.arms.service import Service
from simulations.arms.training import Training, read_weights
from simulations.arms.weight_sharing import average_dense
from simulations.fleet_settings import FleetSettings

# What a cut leaves is further from a good model than the backbone is, and learns faster before it is averaged.
CUT_TRAINING = Training(learning_rate=1e-3)


class FedAvgArm(Arm):
    """FedAvg on the dense model, then one mask for all by vote, then a last round of FedAvg on the cut model.

    The cut comes after all rounds, where a fleet has its final pass: as there, every client takes part, compensates
    the mask on its own samples and trains what is left. The average of that is everybody's model, and only its head
    is fitted to each client. Uses labels, and an uplink of weights: neither is needed for anything else in fedsieve.
    """

    name = "fedavg"
    summary = "weights averaged with Flower's FedAvg, then one mask by vote; needs labels, sends weights"
    needs_classes = True

    def hyper_parameters(self) -> dict[str, float]:
        """Return how clients train."""
        return {**asdict(Training()), "cut_learning_rate": CUT_TRAINING.learning_rate}

    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Average, vote, cut, average once more, and judge the common model with each client's head."""
        averaging = Averaging(world, seed=settings.seed)
        averaged = average_dense(world, settings, averaging, Training())
        with tempfile.TemporaryDirectory() as folder:
            service = Service(averaged, settings, Path(folder))
            voted = vote(averaged, settings, service)
        for client, answer in voted.answers.items():
            averaging.uplink[client] += answer.uplink_bytes
            averaging.downlink[client] += answer.downlink_bytes
        rows: dict[int, Row] = {}
        for budget, mask in voted.masks.items():
            clients = [c for c in world.clients if world.budget(c, settings) == budget]
            common = MaskedAverage(averaged, settings, service.generic.groups, mask, CUT_TRAINING)
            model = common.average(averaging, clients)
            averaging.hand_out(read_weights(model), clients)
            for client in clients:
                found = {
                    "weights_kept": common.weights_kept,
                    "evaluations": voted.answers[client].found["evaluations"],
                    "personalized_layers": [],
                    "levels": common.levels,
                    "entropy_increase": _increase(averaged, model, client),
                    "fit_r2": voted.answers[client].found["fit_r2"],
                }
                inputs = world.samples(client).inputs
                own = with_fitted_head(model, common.layers, inputs) if settings.adapt_head else model
                sent, received = averaging.uplink[client], averaging.downlink[client]
                rows[client] = client_row(world, client, own, found, uplink_bytes=sent, downlink_bytes=received)
        return ArmResult.of([rows[client] for client in world.clients], rounds=settings.rounds + 2)


def _increase(averaged: World, model: nn.Module, client: int) -> float:
    """Return the entropy increase (nats) from the averaged to the cut model, on all of a client's private samples.

    No sample is held out: all of them were trained on.
    """
    inputs = averaged.samples(client).inputs
    dense, cut = private_logits(averaged.backbone.model, inputs), private_logits(model, inputs)
    return float(entropy_increase(dense, cut).mean())
