"""A share of all weights, tokens included, beside the dense model trained in the same way: see `benchmarks.text`."""

from typing import Any

import torch

from benchmarks.text.cells import Fleet, row_counts
from benchmarks.text.clients import Client, load_client
from benchmarks.text.rows import FLEET_AND_OWN

Record = dict[str, Any]
SHARE = 0.8
# Tokens that stay.
VOCABULARY = 24_000
# Batches of tuning: with 200 even the dense model begins to lose.
STEPS = 100
DENSE, DENSE_TUNED, CUT, CUT_TUNED = "dense", "dense, tuned", "cut, closed form", "cut, tuned"
ARMS = (DENSE, DENSE_TUNED, CUT, CUT_TUNED)
# What one model gives, one after the other.
PAIRS = ((DENSE, DENSE_TUNED), (CUT, CUT_TUNED))


def evaluate_pair(fleet: Fleet, sensed: dict[int, Record], task: tuple[int, str]) -> list[Record]:
    """Score the dense model of one client or its cut one, by the name of the arm, as it is and tuned."""
    number, arm = task
    client = load_client(fleet.load(), number, vocabulary=VOCABULARY if arm == CUT else None)
    model = cut_to_share(client, sensed, number) if arm == CUT else client.world.model
    whole = sum(parameter.numel() for parameter in client.world.model.parameters())
    share = sum(parameter.numel() for parameter in model.parameters()) / whole
    tuned = client.trained(model, "tune", steps=STEPS)
    names = dict(PAIRS)[arm], arm
    return [
        {"client": number, "arm": name, "share": share, "nats": client.nats_per_token(made)}
        for name, made in zip(reversed(names), (model, tuned), strict=True)
    ]


def cut_to_share(client: Client, sensed: dict[int, Record], number: int) -> torch.nn.Module:
    """Return the client's model, of fewer tokens already, with blocks cut until `SHARE` of the dense model is left."""
    whole = sum(parameter.numel() for parameter in client.world.model.parameters())
    left = sum(parameter.numel() for parameter in client.trace.model.parameters())
    blocks = sum(layer.weights for layer in client.world.layers)
    budget = (SHARE * whole - (left - blocks)) / blocks
    counts, _ = row_counts(client, FLEET_AND_OWN, budget, sensed, number)
    return client.cut_on_more(counts)
