import numpy as np
from planted import CLASSES, PER_CLASS, Array, clients_with, labels

from simulations.inference.reconstruction import reconstruct, reconstruction_scores
from simulations.inference.views import View, observe


def gain(planted: bool) -> float:
    """Images of two patterns a class; where it is planted, vectors say which of them a client's images have more of."""
    rng = np.random.default_rng(0)
    patterns = rng.random((CLASSES, 2, 14, 14))
    which = np.tile(np.arange(PER_CLASS) % 2, CLASSES)
    images: Array = patterns[labels(), which]
    codes = np.eye(CLASSES)[labels()] * (2.0 * which - 1.0)[:, None] * planted
    shadow, targets = (clients_with(codes, count, noise=0.1, rng=rng) for count in (120, 40))
    view = View(name="view", cohort=1, observations=(1,))
    seen = observe(targets.vectors, view, trials=1, rng=rng)
    draw = reconstruct(shadow, images, labels(), view, seen.seen, targets.classes)
    scores, baseline = reconstruction_scores(draw, targets, images, labels(), seen)
    return float((scores - baseline).mean())


def test_images_that_vectors_describe_are_drawn_better_than_the_mean_of_their_class() -> None:
    assert gain(planted=True) > 0.01
    assert gain(planted=False) < 0.001
