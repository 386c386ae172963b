"""A share of all weights, tokens included, beside the dense model trained in the same way: see `benchmarks.text`."""

from typing import Any

import torch

from benchmarks.text.cells import Fleet, row_counts
from benchmarks.text.clients import Client, Counts, load_client
from benchmarks.text.rows import FLEET_AND_OWN
from personalization.layers import linear_bias
from personalization.settings import Recovery

Record = dict[str, Any]
SHARE = 0.8
# Tokens that stay.
VOCABULARY = 24_000
# Batches of tuning: with 200 even the dense model begins to lose.
TUNING_STEPS = 100
TRAINING_STEPS = 200
RECOVERY: Recovery = "distill-tune"
# Windows of private text that a cut is made on, where there are as many.
WINDOWS = 64
DENSE, DENSE_TUNED = "dense", "dense, tuned"
CUT, TUNED_CUT, ALL_THREE = "cut", "tuned, cut", "tuned, cut, trained"
ARMS = (DENSE, DENSE_TUNED, CUT, TUNED_CUT, ALL_THREE)
# What is made one after the other.
CHAINS = ((DENSE, DENSE_TUNED), (TUNED_CUT, ALL_THREE), (CUT,))


def evaluate_chain(fleet: Fleet, sensed: dict[int, Record], task: tuple[int, str]) -> list[Record]:
    """Make the models of one client that begin with the arm of `task`, and score each of them."""
    number, first = task
    if first == DENSE:
        client = load_client(fleet.load(), number)
        models = [client.trace.model, client.tuned_first(TUNING_STEPS).trace.model]
    else:
        client = load_client(fleet.load(), number, vocabulary=VOCABULARY)
        counts = counts_of_share(client, sensed, number)
        models = _cut_and_trained(client, counts) if first == TUNED_CUT else [client.cut_on_more(counts, WINDOWS)]
    whole = _weights(client.world.model)
    (arms,) = (chain for chain in CHAINS if chain[0] == first)
    return [
        {"client": number, "arm": arm, "share": _weights(model) / whole, "nats": client.nats_per_token(model)}
        for arm, model in zip(arms, models, strict=True)
    ]


def told_last(task: tuple[int, str]) -> bool:
    """Say whether a task can wait: what is not tuned is not what a table is for."""
    return task[1] == CUT


def counts_of_share(client: Client, sensed: dict[int, Record], number: int) -> Counts:
    """Return the units [layers] that leave `SHARE` of the dense model's weights, where tokens have gone before."""
    dense, layers = client.world.model, client.world.layers
    blocks = sum(layer.weights for layer in layers)
    writers = [client.trace.model.get_submodule(layer.writer) for layer in layers]
    # A writer that is refitted has a bias.
    new = sum(len(client.trace.layer_outputs[0][0, 0]) for writer in writers if linear_bias(writer) is None)
    budget = (SHARE * _weights(dense) - new - (_weights(client.trace.model) - blocks)) / blocks
    return row_counts(client, FLEET_AND_OWN, budget, sensed, number)[0]


def _cut_and_trained(client: Client, counts: Counts) -> list[torch.nn.Module]:
    tuned = client.tuned_first(TUNING_STEPS)
    cut = tuned.cut_on_more(counts, WINDOWS)
    return [cut, tuned.trained(cut, RECOVERY, steps=TRAINING_STEPS)]


def _weights(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
