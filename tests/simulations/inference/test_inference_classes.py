import numpy as np
from planted import CLASSES, clients_with, labels

from simulations.inference.class_inference import class_trials, linear, network
from simulations.inference.scores import auc
from simulations.inference.views import Array, View, observe


def area(attack: str, codes: Array, cohort: int) -> float:
    rng = np.random.default_rng(0)
    shadow, targets = (clients_with(codes, count, noise=5.0, rng=rng) for count in (120, 60))
    view = View(name="view", cohort=cohort, observations=(1,))
    seen = observe(targets.vectors, view, trials=10, rng=rng)
    known = shadow.classes > 0
    if attack == "linear":
        scores = linear(shadow.vectors, known, view, seen)
    else:
        scores = network(shadow.vectors, known, view, seen, epochs=3, rng=rng)
    trials = class_trials(scores, targets.classes > 0, seen)
    return auc(trials.scores, trials.truth)


def test_both_attackers_find_classes_that_vectors_show() -> None:
    codes = np.eye(CLASSES)[labels()]
    assert area("linear", codes, 1) > 0.95
    assert area("network", codes, 1) > 0.95


def test_a_sum_tells_the_share_of_each_class_and_no_more() -> None:
    codes = np.eye(CLASSES)[labels()]
    found = [area("linear", codes, cohort) for cohort in (1, 3, 30)]
    assert found[0] > found[1] > found[2]
    # Of 30 clients, each holding 2 of 5 classes at random, the exact counts would give about 0.57.
    assert 0.51 < found[2] < 0.6


def test_vectors_without_classes_in_them_give_none_away() -> None:
    codes = np.zeros((len(labels()), 10))
    assert 0.45 < area("linear", codes, 1) < 0.55
    assert 0.45 < area("network", codes, 1) < 0.55
