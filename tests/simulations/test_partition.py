import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.errors import UserError
from simulations.data import ImageDataset
from simulations.partition import (
    ClientSplit,
    LabelPartition,
    PartitionSettings,
    client_classes,
    fill_quotas,
    largest_remainder,
    make_partition,
)


def make_dataset(train_labels: np.ndarray, test_labels: np.ndarray, classes: int = 10) -> ImageDataset:
    return ImageDataset(
        np.zeros((len(train_labels), 1, 1), np.uint8),
        train_labels.astype(np.int64),
        np.zeros((len(test_labels), 1, 1), np.uint8),
        test_labels.astype(np.int64),
        tuple(f"class {i}" for i in range(classes)),
    )


def balanced(per_class: int = 120, test_per_class: int = 20, classes: int = 10) -> ImageDataset:
    names = np.arange(classes)
    return make_dataset(np.tile(names, per_class), np.repeat(names, test_per_class), classes)


def shares(dataset: ImageDataset, **settings: object) -> list[ClientSplit]:
    partition = make_partition(dataset, PartitionSettings(**settings))
    return [partition.client_indices(i) for i in range(partition.clients)]


def assert_disjoint(splits: list[ClientSplit]) -> None:
    together = np.concatenate([split.train for split in splits])
    assert len(np.unique(together)) == len(together)


@given(
    classes=st.integers(1, 12), per_client=st.integers(1, 12), clients=st.integers(1, 60), seed=st.integers(0, 10**6)
)
def test_any_fleet_uses_all_classes_alike_to_within_one(classes: int, per_client: int, clients: int, seed: int) -> None:
    per_client = min(per_client, classes)
    held = [client_classes(i, classes, per_client, seed) for i in range(clients)]
    assert all(len(set(h.tolist())) == per_client for h in held)
    usage = np.bincount(np.concatenate(held), minlength=classes)
    assert usage.max() - usage.min() <= 1


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=12).filter(lambda w: max(w) > 0),
    total=st.integers(0, 10_000),
)
def test_largest_remainder_is_exact_and_within_one_of_the_share(weights: list[float], total: int) -> None:
    array = np.array(weights)
    quotas = largest_remainder(array, total)
    assert quotas.sum() == total
    assert (np.abs(quotas - total * (array / array.max()) / (array / array.max()).sum()) < 1 + 1e-6).all()
    assert (quotas[array == 0] == 0).all()


@given(data=st.data(), classes=st.integers(1, 8), total=st.integers(0, 300), spill=st.booleans())
def test_quotas_fill_what_there_is_and_no_more(data: st.DataObject, classes: int, total: int, spill: bool) -> None:
    capacity = np.array(data.draw(st.lists(st.integers(0, 60), min_size=classes, max_size=classes)))
    proportions = np.array(data.draw(st.lists(st.floats(0, 1), min_size=classes, max_size=classes)))
    quotas = fill_quotas(proportions, total, capacity, spill=spill)
    assert (quotas >= 0).all()
    assert (quotas <= capacity).all()
    reachable = capacity.sum() if spill else capacity[proportions > 0].sum()
    assert quotas.sum() == min(total, reachable)


@given(
    clients=st.integers(1, 12),
    per_client=st.integers(1, 10),
    samples=st.integers(10, 60),
    test_limit=st.integers(1, 250),
    seed=st.integers(0, 99),
)
def test_classes_are_disjoint_even_and_exact(
    clients: int, per_client: int, samples: int, test_limit: int, seed: int
) -> None:
    dataset = balanced()
    splits = shares(
        dataset,
        clients=clients,
        classes_per_client=per_client,
        samples=samples,
        test_limit=test_limit,
        seed=seed,
    )
    assert_disjoint(splits)
    for split in splits:
        assert len(split.train) == samples
        assert len(split.classes) == per_client
        counts = np.bincount(dataset.train_labels[split.train], minlength=10)[list(split.classes)]
        assert counts.sum() == samples
        assert counts.max() - counts.min() <= 1
        assert len(np.unique(split.test)) == len(split.test) == min(test_limit, 20 * per_client)
        assert set(dataset.test_labels[split.test].tolist()) <= set(split.classes)


@pytest.mark.parametrize(("clients", "samples"), [(60, 20), (40, 30), (24, 50), (17, 70), (1, 1200), (1200, 1)])
def test_a_balanced_pool_can_be_used_up(clients: int, samples: int) -> None:
    dataset = balanced()
    splits = shares(dataset, clients=clients, samples=samples, classes_per_client=min(samples, 10))
    assert_disjoint(splits)
    assert sum(len(split.train) for split in splits) == clients * samples


def test_three_classes_use_up_a_balanced_pool() -> None:
    assert_disjoint(shares(balanced(), clients=60, samples=20, classes_per_client=3))


@given(alpha=st.floats(1e-6, 1e6), clients=st.integers(1, 24), seed=st.integers(0, 99))
def test_dirichlet_always_ends_disjoint_and_exact(alpha: float, clients: int, seed: int) -> None:
    dataset = balanced()
    splits = shares(dataset, kind="dirichlet", alpha=alpha, clients=clients, samples=50, seed=seed, test_limit=40)
    assert_disjoint(splits)
    for split in splits:
        assert len(split.train) == 50
        held = dataset.train_labels[split.train]
        assert split.classes == tuple(np.unique(held).tolist())
        tested = np.bincount(dataset.test_labels[split.test], minlength=10)
        assert (tested[np.bincount(held, minlength=10) == 0] == 0).all()


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-6, 1e300, 1.7e308])
def test_dirichlet_at_the_limits_of_floats(alpha: float) -> None:
    dataset = balanced(per_class=1000)
    (split,) = shares(dataset, kind="dirichlet", alpha=alpha, clients=1, samples=100)
    counts = np.bincount(dataset.train_labels[split.train], minlength=10)
    assert counts.max() == (100 if alpha < 1 else 10)


def test_dirichlet_tests_in_the_proportions_that_a_client_holds() -> None:
    dataset = balanced(per_class=2000, test_per_class=500)
    for split in shares(dataset, kind="dirichlet", clients=20, samples=400, test_limit=200):
        held = np.bincount(dataset.train_labels[split.train], minlength=10) / 400
        tested = np.bincount(dataset.test_labels[split.test], minlength=10)
        assert (np.abs(tested - 200 * held) < 1 + 1e-9).all()


def test_smaller_alpha_is_more_uneven() -> None:
    dataset = balanced(per_class=2000)

    def largest(alpha: float) -> float:
        splits = shares(dataset, kind="dirichlet", alpha=alpha, clients=20, samples=100, seed=3)
        return float(np.mean([np.bincount(dataset.train_labels[s.train]).max() for s in splits]))

    assert largest(0.05) > largest(1.0) > largest(100.0)


@given(kind=st.sampled_from(["classes", "dirichlet"]), reuse=st.booleans(), seed=st.integers(0, 99))
def test_a_client_is_the_same_whoever_is_asked_before(kind: str, reuse: bool, seed: int) -> None:
    dataset = balanced(per_class=40)
    settings = PartitionSettings(kind=kind, clients=9, samples=30, reuse=reuse, seed=seed)
    forward, backward = make_partition(dataset, settings), make_partition(dataset, settings)
    for client in reversed(range(9)):
        backward.client_indices(client)
    for client in range(9):
        one, other = forward.client_indices(client), backward.client_indices(client)
        np.testing.assert_array_equal(one.train, other.train)
        np.testing.assert_array_equal(one.test, other.test)
        assert one.classes == other.classes


@given(kind=st.sampled_from(["classes", "dirichlet"]), client=st.integers(0, 10**9 - 1))
def test_a_fleet_larger_than_the_data_reuses_images_but_not_within_a_client(kind: str, client: int) -> None:
    dataset = balanced()
    partition = make_partition(dataset, PartitionSettings(kind=kind, clients=10**9, reuse=True))
    split = partition.client_indices(client)
    assert len(np.unique(split.train)) == len(split.train) == 200
    assert set(dataset.train_labels[split.train].tolist()) == set(split.classes)


def test_seeds_differ() -> None:
    one, other = (shares(balanced(), clients=4, samples=30, seed=s) for s in (0, 1))
    assert any(not np.array_equal(a.train, b.train) for a, b in zip(one, other, strict=True))


def test_natural_clients_hold_their_own_folders() -> None:
    owners, test_owners = np.repeat([0, 1, 2], [5, 40, 7]), np.repeat([0, 1, 2], [2, 3, 30])
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(52)
    dataset = ImageDataset(
        np.zeros((52, 1, 1), np.uint8),
        (np.arange(52) % 4)[shuffled],
        np.zeros((35, 1, 1), np.uint8),
        np.arange(35) % 4,
        ("a", "b", "c", "d"),
        owners[shuffled],
        test_owners,
        ("amy", "ben", "zoe"),
    )
    splits = shares(dataset, kind="natural", samples=20, test_limit=10)
    assert [len(s.train) for s in splits] == [5, 20, 7]
    assert [len(s.test) for s in splits] == [2, 3, 10]
    assert_disjoint(splits)
    assert dataset.train_owners is not None
    for client, split in enumerate(splits):
        assert set(dataset.train_owners[split.train].tolist()) == {client}
        assert split.classes == tuple(np.unique(dataset.train_labels[split.train]).tolist())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"clients": 0}, "clients 0"),
        ({"kind": "round robin"}, "round robin"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": math.nan}, "alpha nan"),
        ({"alpha": math.inf}, "alpha inf"),
        ({"samples": 2}, "2 samples for 3 classes"),
        ({"classes_per_client": 11}, "11 classes per client, but the data have 10"),
        ({"clients": 7}, "7 clients of 200 samples are 1,400 images, but the data have 1,200"),
        ({"samples": 1201, "reuse": True}, "1,201 images, but the data have 1,200"),
        ({"clients": 4, "classes_per_client": 1}, "of 120"),
        ({"classes_per_client": 1, "reuse": True}, "needs 200 images of class"),
        ({"kind": "natural"}, "one folder for each client"),
        ({"test_limit": 0}, "test_limit 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_had_is_explained(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        shares(balanced(), **settings)


def test_a_class_without_test_images_is_named() -> None:
    with pytest.raises(UserError, match="class 1"):
        make_partition(make_dataset(np.array([0, 1] * 50), np.array([0] * 9)), PartitionSettings(classes_per_client=1))


def test_there_is_no_client_beyond_the_fleet() -> None:
    partition = LabelPartition(balanced(), PartitionSettings(clients=2))
    for client in (-1, 2):
        with pytest.raises(IndexError):
            partition.client_indices(client)
