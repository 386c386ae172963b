import numpy as np
import pytest
from planted import Array, clients_with, labels

from simulations.inference.membership import ask, membership_scores, membership_trials, whitened
from simulations.inference.scores import auc
from simulations.inference.views import View, observe


def areas(
    codes: Array, features: Array, *, cohort: int = 1, noise: float = 0.5, sum_noise: float = 0.0
) -> dict[str, float]:
    rng = np.random.default_rng(0)
    shadow, targets = (clients_with(codes, count, noise=noise, rng=rng) for count in (120, 60))
    view = View(name="view", cohort=cohort, observations=(1,), noise=sum_noise)
    questions = ask(targets.held, labels(), 10, rng)
    seen = observe(targets.vectors, view, trials=3, rng=rng)
    found = membership_scores(
        shadow, targets, features, labels(), view, seen, questions, count=10, rng=np.random.default_rng(1)
    )
    trials = {name: membership_trials(scores, questions, seen) for name, scores in found.items()}
    return {name: auc(t.scores, t.truth) for name, t in trials.items()}


@pytest.fixture
def features() -> Array:
    return whitened(np.random.default_rng(3).standard_normal((len(labels()), 30)))


def test_vectors_that_sum_features_give_members_away(features: Array) -> None:
    found = areas(features, features)
    assert found["mean match"] > 0.65
    assert found["learned combination"] > 0.65


def test_an_image_that_leaves_a_trace_of_its_own_is_found_without_features(features: Array) -> None:
    codes = np.random.default_rng(4).standard_normal((len(labels()), 40))
    found = areas(codes, features)
    assert found["image's shadow clients"] > 0.65
    assert found["learned combination"] > 0.6
    assert found["mean match"] < 0.55


def test_vectors_that_depend_on_classes_alone_tell_no_members(features: Array) -> None:
    codes = np.eye(5)[labels()]
    assert all(0.45 < area < 0.55 for area in areas(codes, features).values())


def test_a_sum_tells_less_than_a_vector_and_noise_hides_the_rest(features: Array) -> None:
    alone, summed = areas(features, features), areas(features, features, cohort=10)
    hidden = areas(features, features, cohort=10, sum_noise=300.0)
    assert alone["mean match"] > summed["mean match"] + 0.05 > hidden["mean match"] + 0.02
    assert abs(hidden["mean match"] - 0.5) < 0.03


def test_questions_are_of_the_same_classes(features: Array) -> None:
    rng = np.random.default_rng(0)
    held = clients_with(features, 5, noise=0.0, rng=rng).held
    questions = ask(held, labels(), 12, rng)
    for row, images, truth in zip(held, questions.image, questions.truth, strict=True):
        assert (row[images] == truth).all()
        kinds = labels()[images]
        assert sorted(kinds[truth]) == sorted(kinds[~truth])
