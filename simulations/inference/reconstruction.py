"""What does a private image look like? Asked for each class of a client, with its classes known to the attacker."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulations.inference.membership import Clients
from simulations.inference.regression import fit_ridge
from simulations.inference.views import Array, Seen, View

# Images are told apart by so many principal components; finer detail is not in their mean.
COMPONENTS = 40
_CONSTANTS = (0.01**2, 0.03**2)
_WINDOW = 7


def reconstruct(
    shadow: Clients, images: Array, labels: NDArray[np.int64], view: View, seen: Array, classes: Array
) -> Callable[[int], Array]:
    """Return, for a class, the images [trials, height, width] that an attacker thinks its clients hold of it.

    images [pool, height, width] in [0, 1]. seen [trials, statistics], classes [trials, classes]. For each class, ridge
    regression from what a client sends to the mean of its images, in their principal components.
    """
    flat = images.reshape(len(images), -1)
    observations = list(view.observations)
    noise = np.concatenate([np.full(shadow.vectors.shape[-1], view.single_noise), np.zeros(classes.shape[1])])

    def draw(label: int) -> Array:
        center, basis = _components(flat[labels == label])
        holders = np.flatnonzero(shadow.held[:, labels == label].any(1))
        held = shadow.held[holders] & (labels == label)
        mean = (held @ flat) / held.sum(1, keepdims=True) - center
        client = np.repeat(holders, len(observations))
        vectors = shadow.vectors[holders][:, observations].reshape(len(client), -1)
        rows = np.concatenate([vectors, shadow.classes[client]], axis=1)
        targets = np.repeat(mean @ basis.T, len(observations), axis=0)
        learned = fit_ridge(rows, targets, client=client, noise=noise)
        found = center + learned(np.concatenate([seen, classes], axis=1)) @ basis
        return np.clip(found, 0.0, 1.0).reshape(-1, *images.shape[1:])

    return draw


def reconstruction_scores(
    draw: Callable[[int], Array], targets: Clients, images: Array, labels: NDArray[np.int64], seen: Seen
) -> tuple[Array, Array]:
    """Return for each target the mean structural similarity of what was drawn to its images of the class, [clients].

    And the same for the baseline, the mean image of the class over the whole pool, which sees nothing of the client but
    its classes. The mean over images, because the likest of many is likelier the more a drawing strays, in whatever
    direction.
    """
    found, baseline, count = (np.zeros(len(targets.held)) for _ in range(3))
    for label in np.unique(labels).tolist():
        plain = images[labels == label].mean(0)
        drawn = draw(label)
        trial = {int(client): row for row, client in enumerate(seen.client)}
        for client in np.flatnonzero(targets.held[:, labels == label].any(1)).tolist():
            own = images[targets.held[client] & (labels == label)]
            found[client] += structural_similarity(drawn[trial[client]], own).mean()
            baseline[client] += structural_similarity(plain, own).mean()
            count[client] += 1
    return found / count, baseline / count


def structural_similarity(image: Array, others: Array) -> Array:
    """Return the mean structural similarity of `image` [height, width] to each of `others` [images, height, width].

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", equation 13, with
    uniform windows of 7 pixels; values in [0, 1].
    """
    size = min(_WINDOW, *image.shape)

    def local_mean(values: Array) -> Array:
        sums = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 0), (1, 0)]).cumsum(-1).cumsum(-2)
        rows = sums[..., size:, :] - sums[..., :-size, :]
        return np.asarray((rows[..., size:] - rows[..., :-size]) / size**2)

    mean, means = local_mean(image), local_mean(others)
    variance, variances = (local_mean(v**2) - m**2 for v, m in ((image, mean), (others, means)))
    common = local_mean(image * others) - mean * means
    light, contrast = _CONSTANTS
    value = (2 * mean * means + light) * (2 * common + contrast)
    value /= (mean**2 + means**2 + light) * (variance + variances + contrast)
    return np.asarray(value.mean((-2, -1)))


def _components(rows: Array) -> tuple[Array, Array]:
    center = rows.mean(0)
    _, values, basis = np.linalg.svd(rows - center, full_matrices=False)
    return center, basis[: min(COMPONENTS, int((values > 1e-6 * values[0]).sum()))]
