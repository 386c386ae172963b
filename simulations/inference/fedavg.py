"""The same attacks on updates of FedAvg, and those that only updates of weights allow."""

import numpy as np

from simulations.inference.bench import Bench, Knowledge, Row, clients_of
from simulations.inference.class_inference import class_trials
from simulations.inference.membership import Held, ask, membership_trials
from simulations.inference.recording import OnProgress
from simulations.inference.scores import Trials
from simulations.inference.shadow import ShadowFleet
from simulations.inference.updates import Updates, record_updates
from simulations.inference.views import Array, Seen, View, observe

VIEW = View(name="FedAvg update", cohort=1, observations=(0,))
_LATER = View(name="FedAvg update", cohort=1, observations=(1,))
_SPREAD = 1e-6


def attack_updates(fleet: ShadowFleet, knowledge: Knowledge, on_progress: OnProgress) -> list[Row]:
    """Return the rows of all attacks on single updates of some of the targets."""
    settings = fleet.settings
    shadow_numbers = fleet.shadow[: settings.fedavg_shadow]
    target_numbers = fleet.targets[: settings.fedavg_targets]
    learned, attacked = (record_updates(fleet, numbers, on_progress) for numbers in (shadow_numbers, target_numbers))
    shadow = clients_of(fleet, shadow_numbers, learned.vectors)
    targets = clients_of(fleet, target_numbers, attacked.vectors)
    bench = Bench(shadow, targets, knowledge, settings)
    rows = bench.membership(VIEW) + bench.classes(VIEW) + bench.reconstruction(VIEW)
    rows += bench.linkage(_LATER, earlier=0, summed=False, name="own update known, other data order")
    rng = np.random.default_rng([settings.seed, settings.targets])
    questions = ask(targets.held, knowledge.labels, settings.candidates, rng)
    seen = observe(targets.vectors, VIEW, trials=1, rng=rng)
    drops = {"fall of the loss": attacked.losses, "likelihood ratio": likelihood_ratio(learned, shadow.held, attacked)}
    asked = {
        name: membership_trials(np.take_along_axis(found, questions.image, axis=1), questions, seen)
        for name, found in drops.items()
    }
    rows += bench.rows("membership", VIEW.name, asked)
    return rows + bench.rows(
        "class", VIEW.name, {"change of the head's bias": _by_bias(targets.vectors, targets.classes, seen)}
    )


def likelihood_ratio(shadow: Updates, held: Held, targets: Updates) -> Array:
    """Return [targets, images]: how much likelier the fall of an image's loss is if the client holds it.

    Carlini et al. 2022, "Membership Inference Attacks From First Principles" (arXiv 2112.03570), the online attack with
    Gaussians of one variance for each image, as shadow clients that held it are few. held [shadow clients, images].
    """
    inside, outside = held.astype(np.float64), 1.0 - held
    count_in, count_out = inside.sum(0), outside.sum(0)
    mean_in = (inside * shadow.losses).sum(0) / np.maximum(count_in, 1)
    mean_out = (outside * shadow.losses).sum(0) / np.maximum(count_out, 1)
    rest = np.square(shadow.losses - np.where(held, mean_in, mean_out)).sum(0)
    variance = rest / np.maximum(len(held) - 2, 1) + _SPREAD
    ratio = np.square(targets.losses - mean_out) - np.square(targets.losses - mean_in)
    return np.asarray(np.where(count_in > 0, ratio / (2.0 * variance), 0.0))


def _by_bias(vectors: Array, classes: Array, seen: Seen) -> Trials:
    """Return class trials scored by the bias of each class, which training raises for the classes that occur."""
    width = classes.shape[1]
    start = vectors.shape[-1] - width
    return class_trials(vectors[seen.client, 0, start:], classes > 0, seen)
