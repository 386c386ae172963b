"""Does an image belong to a client? Asked for images that it holds and others of the same classes that it does not.

The attackers know the classes of everybody in the sum, so that to know a class is no advantage, and have met every
image of the pool in the hands of shadow clients.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.inference.regression import LinearMap, fit_ridge
from simulations.inference.scores import Trials
from simulations.inference.views import Array, Seen, View, observe

Held = NDArray[np.bool_]
COMPONENTS = 64
_RIDGE = 0.3  # of the variance of a whitened statistic, which has 1
ATTACKERS = ("mean match", "image's shadow clients", "learned combination")


@dataclass(frozen=True)
class Clients:
    """vectors [clients, observations, statistics], held [clients, images], classes [clients, classes]."""

    vectors: Array
    held: Held
    classes: Array

    def part(self, rows: NDArray[np.int64]) -> "Clients":
        """Return some of them."""
        return Clients(self.vectors[rows], self.held[rows], self.classes[rows])


@dataclass(frozen=True)
class Questions:
    """image [clients, questions] of the pool; truth [clients, questions]: whether the client holds it."""

    image: NDArray[np.int64]
    truth: NDArray[np.bool_]


def ask(held: Held, labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> Questions:
    """Draw `count` images that each client holds and, for each of them, one of its class that the client does not."""
    images, truth = [], []
    for row in held:
        yes = rng.choice(np.flatnonzero(row), count, replace=count > row.sum())
        no = np.array([rng.choice(np.flatnonzero(~row & (labels == label))) for label in labels[yes]])
        images.append(np.concatenate([yes, no]))
        truth.append(np.arange(2 * count) < count)
    return Questions(np.stack(images), np.stack(truth))


def whitened(features: Array, components: int = COMPONENTS) -> Array:
    """Return the leading principal components [images, components] of `features`, each with variance 1."""
    centered = features - features.mean(0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    rank = int((values > 1e-6 * values[0]).sum())
    return np.asarray(left[:, : min(components, rank)] * np.sqrt(len(features)))


class Attackers:
    """Two attackers trained on single vectors of shadow clients; both are linear, so they work on sums as they are."""

    def __init__(self, shadow: Clients, features: Array, labels: NDArray[np.int64], view: View) -> None:
        """Learn from `shadow`. features [images, components]: whitened. labels [images]."""
        self._features = features
        observations = list(view.observations)
        client = np.repeat(np.arange(len(shadow.vectors)), len(observations))
        rows = np.concatenate(
            [shadow.vectors[:, observations].reshape(len(client), -1), shadow.classes[client]], axis=1
        )
        statistics = shadow.vectors.shape[-1]
        noise = np.zeros(rows.shape[1])
        noise[:statistics] = view.single_noise
        # What a client's images have in common, beyond its classes; its variance is 1 if they are drawn at random.
        summary = shadow.held @ features / np.sqrt(shadow.held.sum(1, keepdims=True))
        self._match = fit_ridge(rows, summary[client], client=client, noise=noise)
        self._expected = fit_ridge(shadow.classes[client], rows[:, :statistics], client=client, strengths=(1e-3,))
        rest = rows[:, :statistics] - self._expected(shadow.classes[client])
        self._whiten = _whitening(rest, view.single_noise)
        of_client = (rest @ self._whiten).reshape(len(shadow.vectors), len(observations), -1).mean(1)
        self._traces = _traces(of_client, shadow, labels)

    def match(self, seen: Array, classes: Array) -> Array:
        """Return what the images of a client have in common, as far as `seen` [trials, statistics] tells."""
        return self._match(np.concatenate([seen, classes], axis=1))

    def scores(self, seen: Array, classes: Array, image: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return evidence [trials, questions, components] by features, and [trials, questions] by shadow clients.

        seen [trials, statistics] and classes [trials, classes] are means over cohorts; image [trials, questions].
        """
        by_feature = self.match(seen, classes)[:, None, :] * self._features[image]
        rest = (seen - self._expected(classes)) @ self._whiten
        return by_feature, np.einsum("tk,tqk->tq", rest, self._traces[image])


def membership_scores(
    shadow: Clients,
    targets: Clients,
    features: Array,
    labels: NDArray[np.int64],
    view: View,
    seen: Seen,
    questions: Questions,
    *,
    count: int,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Return the scores [trials, questions] of each of ATTACKERS; `seen` is what is seen of `targets`.

    The combination weighs the evidence of the other two by ridge regression, learned on sums of one half of the shadow
    clients with attackers trained on the other half.
    """
    image, classes = questions.image[seen.client], seen.mean_of(targets.classes)
    by_feature, by_image = Attackers(shadow, features, labels, view).scores(seen.seen, classes, image)
    combined = _combination(shadow, features, labels, view, count, rng)
    evidence = np.concatenate([by_feature, by_image[..., None]], axis=2)
    found = (by_feature.sum(2), by_image, combined(evidence.reshape(-1, evidence.shape[2])).reshape(image.shape))
    return dict(zip(ATTACKERS, found, strict=True))


def membership_trials(scores: Array, questions: Questions, seen: Seen) -> Trials:
    """Return a trial for each of `scores` [trials, questions]."""
    truth = questions.truth[seen.client]
    return Trials(scores.ravel(), truth.ravel(), np.repeat(seen.client, truth.shape[1]))


def _combination(
    shadow: Clients, features: Array, labels: NDArray[np.int64], view: View, count: int, rng: np.random.Generator
) -> LinearMap:
    halves = np.array_split(rng.permutation(len(shadow.vectors)), 2)
    evidence, truth, client = [], [], []
    for own, other in (halves, halves[::-1]):
        half = shadow.part(own)
        seen = observe(half.vectors, view, trials=2, rng=rng)
        questions = ask(half.held, labels, count, rng)
        image = questions.image[seen.client]
        attackers = Attackers(shadow.part(other), features, labels, view)
        by_feature, by_image = attackers.scores(seen.seen, seen.mean_of(half.classes), image)
        found = np.concatenate([by_feature, by_image[..., None]], axis=2)
        evidence.append(found.reshape(-1, found.shape[2]))
        truth.append(questions.truth[seen.client].reshape(-1, 1).astype(np.float64))
        client.append(np.repeat(own[seen.client], image.shape[1]))
    return fit_ridge(np.concatenate(evidence), np.concatenate(truth), client=np.concatenate(client))


def _whitening(rest: Array, noise: float) -> Array:
    """Return what makes the statistics of `rest` [rows, statistics] uncorrelated, the weakest of them damped."""
    scale = 1.0 / np.sqrt(rest.var(0) + noise**2 + 1e-12)
    scale[rest.std(0) <= 1e-9] = 0.0
    moments = (rest * scale).T @ (rest * scale) / len(rest) + np.diag((noise * scale) ** 2)
    values, basis = np.linalg.eigh(moments)
    return np.asarray(scale[:, None] * (basis / np.sqrt(np.maximum(values, 0.0) + _RIDGE)))


def _traces(rest: Array, shadow: Clients, labels: NDArray[np.int64]) -> Array:
    """Return for each image [images, statistics] how shadow clients with it differ from others with its class."""
    traces = np.zeros((len(labels), rest.shape[1]))
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        clients = np.flatnonzero(shadow.held[:, images].any(1))
        held, own = shadow.held[np.ix_(clients, images)].astype(np.float64), rest[clients]
        count = held.sum(0)[:, None]
        mean = held.T @ own / np.maximum(count, 1)
        others = ((1 - held).T @ own) / np.maximum(len(clients) - count, 1)
        # An image that few shadow clients held is known badly, and its trace shrinks.
        traces[images] = (mean - others) * np.sqrt(count) * (count > 0) * (count < len(clients))
    return traces
