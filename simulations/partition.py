"""Share a data set out among simulated clients.

What a partition keeps is bounded by the data, never by the fleet: while clients hold different images there are no more
clients than images, and where they may hold the same ones (`reuse`), each client's share follows from its number alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from simulations.data import ImageDataset

PartitionKind = Literal["classes", "dirichlet", "natural"]
Indices = NDArray[np.int64]
_CLASSES, _PROPORTIONS, _POOL, _TRAIN, _TEST = range(5)  # what a random stream is for


@dataclass(frozen=True, kw_only=True)
class PartitionSettings:
    """How images are shared out.

    kind: `classes` gives each client a few classes, `dirichlet` uneven proportions of all, `natural` its own folder.
    clients: size of the fleet; `natural` has one client for each folder and ignores this.
    classes_per_client: with `classes`. alpha: with `dirichlet`, smaller is more uneven.
    samples: private images of a client; with `natural`, at most so many of its folder.
    test_limit: at most so many test images a client. Clients may share test images.
    reuse: let clients hold the same private images, for fleets larger than the data.
    """

    kind: PartitionKind = "classes"
    clients: int = 30
    classes_per_client: int = 3
    samples: int = 200
    alpha: float = 0.5
    test_limit: int = 200
    reuse: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense, with a line that says what was expected."""
        if self.kind not in get_args(PartitionKind):
            raise UserError(f"partition {self.kind!r}: expected one of {', '.join(get_args(PartitionKind))}")
        for name in ("clients", "classes_per_client", "samples", "test_limit"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected 1 or more")
        if not 0.0 < self.alpha < math.inf:
            raise UserError(f"alpha {self.alpha}: expected a finite number above 0")
        if self.seed < 0:
            raise UserError(f"seed {self.seed}: expected 0 or more")
        if self.kind == "classes" and self.samples < self.classes_per_client:
            raise UserError(
                f"{self.samples} samples for {self.classes_per_client} classes per client: expected one of each or more"
            )


@dataclass(frozen=True)
class ClientSplit:
    """One client's share: indices of its private and of its test images, and the model's classes that it holds."""

    train: Indices
    test: Indices
    classes: tuple[int, ...]


class Partition(Protocol):
    """Who holds what; the same for the same settings and data, in whatever order clients are asked for."""

    @property
    def clients(self) -> int:
        """Number of clients."""

    def client_indices(self, client: int) -> ClientSplit:
        """Return the share of a client, 0 to clients - 1."""


def make_partition(dataset: ImageDataset, settings: PartitionSettings) -> Partition:
    """Share out `dataset`. Raises UserError with the numbers if it can't give what the settings ask for."""
    if settings.kind == "natural":
        if dataset.train_owners is None or dataset.test_owners is None:
            raise UserError("the natural partition needs --data, a folder with one folder for each client")
        return OwnerPartition(dataset, settings)
    return LabelPartition(dataset, settings)


class OwnerPartition:
    """Each client holds the images of its own folder, drawn by seed where there are more than it may hold."""

    def __init__(self, dataset: ImageDataset, settings: PartitionSettings) -> None:
        """Index the owners. Raises UserError if a client has no images to train or to test with."""
        assert dataset.train_owners is not None
        assert dataset.test_owners is not None
        self._settings = settings
        self._labels = dataset.train_labels
        self._train = _group(dataset.train_owners, len(dataset.client_names))
        self._test = _group(dataset.test_owners, len(dataset.client_names))
        for name, train, test in zip(dataset.client_names, self._train, self._test, strict=True):
            if not len(train) or not len(test):
                raise UserError(f"client folder {name}: {len(train)} private and {len(test)} test images; add some")

    @property
    def clients(self) -> int:
        """Number of client folders."""
        return len(self._train)

    def client_indices(self, client: int) -> ClientSplit:
        """Return the share of a client, 0 to clients - 1."""
        settings = self._settings
        picks = []
        for pool, limit, stream in ((self._train, settings.samples, _TRAIN), (self._test, settings.test_limit, _TEST)):
            rng = np.random.default_rng((settings.seed, stream, client))
            mine = pool[client]
            picks.append(np.sort(rng.choice(mine, limit, replace=False)) if len(mine) > limit else mine)
        return ClientSplit(picks[0], picks[1], tuple(np.unique(self._labels[picks[0]]).tolist()))


class LabelPartition:
    """Each client holds a number of images of each class: a few classes evenly, or proportions from a Dirichlet law."""

    def __init__(self, dataset: ImageDataset, settings: PartitionSettings) -> None:
        """Index the classes and, unless images are reused, share them out. Raises UserError if there are too few."""
        self._settings = settings
        self._classes = np.unique(dataset.train_labels)
        self._train = _class_pools(dataset.train_labels, self._classes)
        self._test = _class_pools(dataset.test_labels, self._classes)
        self._train_sizes = np.array([len(pool) for pool in self._train])
        self._test_sizes = np.array([len(pool) for pool in self._test])
        self._names = [
            dataset.class_names[c] if c < len(dataset.class_names) else str(c) for c in self._classes.tolist()
        ]
        self._check()
        self._taken: Indices | None = None
        if not settings.reuse:
            rng = np.random.default_rng((settings.seed, _POOL))
            self._train = [rng.permutation(pool) for pool in self._train]
            self._taken = self._share_out()

    @property
    def clients(self) -> int:
        """Size of the fleet."""
        return self._settings.clients

    def client_indices(self, client: int) -> ClientSplit:
        """Return the share of a client, 0 to clients - 1."""
        if not 0 <= client < self.clients:
            raise IndexError(f"client {client}: expected 0 to {self.clients - 1}")
        if self._taken is None:
            quotas = self._quotas(client, self._train_sizes)
            train = _draw(self._train, quotas, np.random.default_rng((self._settings.seed, _TRAIN, client)))
        else:
            start, stop = self._taken[client], self._taken[client + 1]
            quotas = stop - start
            train = np.sort(np.concatenate([p[a:b] for p, a, b in zip(self._train, start, stop, strict=True)]))
        limit = self._settings.test_limit
        test_quotas = fill_quotas(quotas / quotas.sum(), limit, self._test_sizes)
        test = _draw(self._test, test_quotas, np.random.default_rng((self._settings.seed, _TEST, client)))
        return ClientSplit(train, test, tuple(self._classes[quotas > 0].tolist()))

    def _check(self) -> None:
        settings, classes, images = self._settings, len(self._classes), int(self._train_sizes.sum())
        if settings.kind == "classes" and settings.classes_per_client > classes:
            raise UserError(
                f"{settings.classes_per_client} classes per client, but the data have {classes}; ask for fewer"
            )
        without_test = [name for name, size in zip(self._names, self._test_sizes, strict=True) if not size]
        if without_test:
            raise UserError(f"no test images of class {', '.join(without_test)}; every class needs some")
        wanted = settings.samples if settings.reuse else settings.clients * settings.samples
        if wanted > images:
            held = (
                f"{settings.samples} samples for each client"
                if settings.reuse
                else (f"{settings.clients} clients of {settings.samples} samples")
            )
            raise UserError(
                f"{held} are {wanted:,} images, but the data have {images:,}; ask for fewer clients or samples"
            )

    def _share_out(self) -> Indices:
        """Return where in each class's pool each client's images start and, one row on, end: [clients + 1, classes]."""
        taken = np.zeros((self.clients + 1, len(self._classes)), dtype=np.int64)
        for client in range(self.clients):
            taken[client + 1] = taken[client] + self._quotas(client, self._train_sizes - taken[client])
        return taken

    def _quotas(self, client: int, left: Indices) -> Indices:
        """Return how many images of each class a client gets of what is left, both [classes]."""
        settings = self._settings
        if settings.kind == "dirichlet":
            rng = np.random.default_rng((settings.seed, _PROPORTIONS, client))
            return fill_quotas(_proportions(len(left), settings.alpha, rng), settings.samples, left, spill=True)
        mine = client_classes(client, len(left), settings.classes_per_client, settings.seed)
        base, extra = divmod(settings.samples, len(mine))
        quotas = np.zeros(len(left), dtype=np.int64)
        quotas[mine] = base
        # What doesn't divide evenly comes from the fullest pools, so that none runs dry before the others.
        quotas[mine[np.argsort(-left[mine], kind="stable")[:extra]]] += 1
        short = int(np.argmax(quotas - left))
        if quotas[short] > left[short]:
            raise UserError(
                f"client {client} of {self.clients} needs {quotas[short]} images of class {self._names[short]}, but "
                f"{left[short]} of {self._train_sizes[short]} are left; ask for fewer clients or samples"
            )
        return quotas


def client_classes(client: int, classes: int, per_client: int, seed: int) -> Indices:
    """Return which of `classes` a client holds [per_client], without a table of the fleet.

    Clients come in rounds of classes / gcd(classes, per_client). In a round, each takes the next `per_client` classes
    of one random order that runs in a circle, so a round uses all classes alike, and any fleet does so to within one.
    """
    turn, place = divmod(client, classes // math.gcd(classes, per_client))
    order = np.random.default_rng((seed, _CLASSES, turn)).permutation(classes)
    return order[(place * per_client + np.arange(per_client)) % classes].astype(np.int64)


def fill_quotas(proportions: NDArray[np.float64], total: int, capacity: Indices, *, spill: bool = False) -> Indices:
    """Return whole numbers [classes], at most `capacity` each, near `proportions` of `total` (largest remainder).

    What a full class can't take goes to the others by their proportions, and with `spill` then to classes of proportion
    0 by what they have left. They sum to `total`, or to less if no class that may take more has any left. Every turn of
    the loop fills a class or ends it, so it ends.
    """
    quotas = np.zeros(len(capacity), dtype=np.int64)
    while (missing := total - int(quotas.sum())) > 0:
        left = capacity - quotas
        weights = np.where(left > 0, proportions, 0.0)
        if spill and weights.sum() <= 0.0:
            weights = left.astype(np.float64)
        if weights.sum() <= 0.0:
            break
        quotas += np.minimum(largest_remainder(weights, missing), left)
    return quotas


def largest_remainder(weights: NDArray[np.float64], total: int) -> Indices:
    """Return whole numbers [classes] that sum to `total`, in proportion to `weights` (Hamilton's method)."""
    exact = weights / weights.max()
    exact *= total / exact.sum()
    whole: Indices = np.floor(exact).astype(np.int64)
    order = np.argsort(np.where(weights > 0, whole - exact, np.inf), kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole


def _proportions(classes: int, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = rng.dirichlet(np.full(classes, alpha))
    if np.isfinite(drawn).all() and drawn.sum() > 0.0:
        return drawn
    # Beyond what floats can draw, the law is at its limits: one class alone, or all alike.
    return np.full(classes, 1.0 / classes) if alpha > 1.0 else np.eye(classes, dtype=np.float64)[rng.integers(classes)]


def _draw(pools: Sequence[Indices], quotas: Indices, rng: np.random.Generator) -> Indices:
    picks = [rng.choice(pool, quota, replace=False) for pool, quota in zip(pools, quotas, strict=True) if quota]
    return np.sort(np.concatenate(picks))


def _group(keys: Indices, groups: int) -> list[Indices]:
    """Return, for each key 0 to groups - 1, the sorted indices where it stands."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    return np.split(order, np.searchsorted(keys[order], np.arange(1, groups)))


def _class_pools(labels: Indices, classes: Indices) -> list[Indices]:
    return [np.flatnonzero(labels == c).astype(np.int64) for c in classes]
