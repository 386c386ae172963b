"""A share of all weights, tokens included, beside the dense model trained in the same way: see `benchmarks.text`."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.text.cells import Fleet, row_counts, sensed_curves
from benchmarks.text.clients import Client, Counts, load_client, weights_of
from benchmarks.text.rows import FLEET, FLEET_AND_OWN
from personalization.allocation.costs import new_biases
from personalization.settings import Recovery
from personalization.transformer.layers import find_layers
from personalization.vocabulary.cut import mean_predictions
from personalization.vocabulary.size import vocabulary_size

Record = dict[str, Any]
SHARE = 0.8
TUNING_STEPS = 100
TRAINING_STEPS = 200
RECOVERY: Recovery = "distill-tune"
# Windows of private text that a cut of blocks and tokens is made on, where there are as many.
WINDOWS = 256
DENSE, TUNED, SPELLED = "dense", "dense, tuned", "tuned, tokens cut"
CUT, TRAINED = "tuned, tokens and blocks cut", "tuned, cut, trained"
# In this order each is made of the one before.
MADE_ONE_BY_ONE = (DENSE, TUNED, SPELLED, CUT, TRAINED)
# The tuned one with the training of the cut one, for which it learns from itself and the labels.
DENSE_TRAINED = "dense, tuned, trained"
ARMS = (DENSE, TUNED, DENSE_TRAINED, SPELLED, CUT, TRAINED)


def evaluate_whole(fleet: Fleet, sensed: dict[int, Record], number: int) -> list[Record]:
    """Make the models of one client, one for each of `MADE_ONE_BY_ONE`, and score them."""
    dense = load_client(fleet.load(), number)
    tuned = dense.tuned_first(TUNING_STEPS).trace.model
    world = replace(dense.world, model=tuned, layers=find_layers(tuned))
    client = load_client(world, number, vocabulary=_vocabulary_size(dense, sensed, number), windows=WINDOWS)
    cut = client.cut_on_more(_counts_of_share(dense, client, sensed, number), WINDOWS)
    trained = client.trained(cut, RECOVERY, steps=TRAINING_STEPS)
    whole = weights_of(dense.trace.model)
    models = [(dense, dense.trace.model), (dense, tuned), *((client, m) for m in (client.trace.model, cut, trained))]
    went = _went(client)
    records = []
    for arm, (own, model) in zip(MADE_ONE_BY_ONE, models, strict=True):
        nats = own.nats(model)
        records.append(
            {
                "client": number,
                "arm": arm,
                "tokens": own.trace.classes,
                "share": weights_of(model) / whole,
                "nats": float(nats.mean()),
                "went": float(went.mean()),
                "nats_of_went": float(nats[went].sum() / nats.size),
            }
        )
    return records


def evaluate_trained_dense(fleet: Fleet, number: int) -> Record:
    """Make `DENSE_TRAINED` of one client, and score it."""
    tuned = load_client(fleet.load(), number).tuned_first(TUNING_STEPS)
    trained = tuned.trained(tuned.trace.model, RECOVERY, steps=TRAINING_STEPS)
    return {
        "client": number,
        "arm": DENSE_TRAINED,
        "tokens": tuned.trace.classes,
        "share": 1.0,
        "nats": tuned.nats_per_token(trained),
    }


def _vocabulary_size(dense: Client, sensed: dict[int, Record], number: int) -> int:
    """Return how many tokens a client would choose to keep that has measured nothing itself."""
    trace, limits = dense.trace, np.full(len(dense.world.layers), dense.settings.layer_limit)
    assert trace.head is not None
    return vocabulary_size(
        trace,
        dense.world.preprocessing,
        dense.speaker.private,
        mean_predictions(trace.head, trace.outputs),
        curves=sensed_curves(dense, FLEET, sensed, number)[0],
        budget=SHARE,
        limits=limits,
    )


def _went(client: Client) -> NDArray[np.bool_]:
    """Return which tokens of the later speeches, [windows, positions], `client` has to spell."""
    assert client.spelled is not None
    spelled = np.array([len(pieces) > 1 for pieces in client.spelled.pieces])
    return spelled[client.speaker.test[:, 1:]]


def _counts_of_share(dense: Client, client: Client, sensed: dict[int, Record], number: int) -> Counts:
    """Return the units [layers] that leave `SHARE` of all weights of `dense`, where tokens of `client` have gone."""
    layers = dense.world.layers
    blocks = sum(layer.weights for layer in layers)
    new = sum(new_biases(client.trace.model, layers).values())
    whole, left = weights_of(dense.trace.model), weights_of(client.trace.model)
    budget = (SHARE * whole - new - (left - blocks)) / blocks
    return row_counts(dense, FLEET_AND_OWN, budget, sensed, number)[0]
