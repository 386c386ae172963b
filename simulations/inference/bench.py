"""The attacks on one view, from clients to rows of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.inference.class_inference import class_trials, linear, network
from simulations.inference.linkage import LinkageView, draw_pairs, linkage_scores, linkage_trials
from simulations.inference.membership import Clients, ask, membership_scores, membership_trials
from simulations.inference.noise import noise_deviation, released
from simulations.inference.reconstruction import reconstruct, reconstruction_scores
from simulations.inference.recording import AFRESH, FIRST, SECOND
from simulations.inference.scores import Trials, auc_interval, mean_interval
from simulations.inference.settings import InferenceSettings
from simulations.inference.shadow import ShadowFleet
from simulations.inference.views import Array, View, observe

Row = dict[str, Any]
ROUNDS = (FIRST, SECOND, AFRESH)
SSIM = "mean structural similarity to the private images of a class; baseline: the same of the class's mean image"


@dataclass(frozen=True)
class Knowledge:
    """What every attacker has. features [images, components]: whitened, of the pool. images [images, height, width] in
    [0, 1]; labels [images].
    """

    features: Array
    images: Array
    labels: NDArray[np.int64]


def views(settings: InferenceSettings) -> list[View]:
    """Return what is attacked: one round and three rounds of each cohort size."""
    found = [View(name=view_name(size), cohort=size, observations=(SECOND,)) for size in settings.cohorts]
    found += [View(name=f"{view_name(size)}, 3 rounds", cohort=size, observations=ROUNDS) for size in settings.cohorts]
    return found


def noisy_views(settings: InferenceSettings) -> list[View]:
    """Return sums of the largest cohort of what is released, with its noise for each epsilon."""
    size = max(settings.cohorts)
    return [
        View(
            name=f"{view_name(size)} with noise, epsilon {epsilon:g}",
            cohort=size,
            observations=(SECOND,),
            noise=noise_deviation(epsilon, settings.delta, cohort=size),
        )
        for epsilon in settings.epsilons
    ]


def view_name(size: int) -> str:
    """Return how a report calls a cohort."""
    return "plain vector" if size == 1 else f"sum of {size}"


class Bench:
    """Runs attacks on targets with what shadow clients teach; random numbers follow from the seed and the view."""

    def __init__(self, shadow: Clients, targets: Clients, knowledge: Knowledge, settings: InferenceSettings) -> None:
        """Take the clients of both kinds."""
        self._shadow, self._targets, self._knowledge, self._settings = shadow, targets, knowledge, settings

    def released(self, plan: Plan, layout: StatisticsLayout) -> "Bench":
        """Return the same with what clients release under differential privacy instead of their vectors."""
        both = [replace(c, vectors=released(c.vectors, plan, layout)) for c in (self._shadow, self._targets)]
        return Bench(both[0], both[1], self._knowledge, self._settings)

    def membership(self, view: View) -> list[Row]:
        """Ask of each target which images it holds."""
        rng, settings, knowledge = self._rng("membership", view), self._settings, self._knowledge
        questions = ask(self._targets.held, knowledge.labels, settings.candidates, rng)
        seen = observe(self._targets.vectors, view, trials=settings.trials, rng=rng)
        scores = membership_scores(
            self._shadow,
            self._targets,
            knowledge.features,
            knowledge.labels,
            view,
            seen,
            questions,
            count=settings.candidates,
            rng=rng,
        )
        trials = {name: membership_trials(values, questions, seen) for name, values in scores.items()}
        return self.rows("membership", view.name, trials)

    def classes(self, view: View) -> list[Row]:
        """Ask of each target which classes it holds."""
        rng, shadow = self._rng("class", view), self._shadow
        seen = observe(self._targets.vectors, view, trials=self._settings.trials, rng=rng)
        known = shadow.classes > 0
        found = {
            "linear": linear(shadow.vectors, known, view, seen),
            "network": network(shadow.vectors, known, view, seen, epochs=self._settings.epochs, rng=rng),
        }
        truth = self._targets.classes > 0
        return self.rows("class", view.name, {n: class_trials(scores, truth, seen) for n, scores in found.items()})

    def linkage(self, view: View, *, earlier: int, summed: bool, name: str) -> list[Row]:
        """Ask whether what is seen has the client in it that the reference came from; `name` says what that is."""
        rng, trials = self._rng(f"linkage {name}", view), max(2, self._settings.trials)
        linked = LinkageView(later=view, earlier=earlier, summed=summed)
        pairs = draw_pairs(self._targets.vectors, linked, trials=trials, rng=rng)
        scores = linkage_scores(self._shadow.vectors, pairs, linked, trials=trials, rng=rng)
        found = {f"{attacker}, {name}": linkage_trials(values, pairs) for attacker, values in scores.items()}
        # Of a vector by itself, an earlier one is what the server has.
        seen = summed or view.cohort == 1
        return [row | {"seen_by_server": seen} for row in self.rows("linkage", view.name, found)]

    def reconstruction(self, view: View) -> list[Row]:
        """Have images of each target drawn."""
        rng, knowledge, targets = self._rng("reconstruction", view), self._knowledge, self._targets
        seen = observe(targets.vectors, view, trials=1, rng=rng)
        classes = seen.mean_of(targets.classes)
        draw = reconstruct(self._shadow, knowledge.images, knowledge.labels, view, seen.seen, classes)
        scores, baseline = reconstruction_scores(draw, targets, knowledge.images, knowledge.labels, seen)
        mean, low, high = mean_interval(scores)
        gain = mean_interval(scores - baseline)
        row: Row = {"attack": "reconstruction", "view": view.name, "attacker": "regression of the mean image"}
        row["meaning"] = SSIM
        row |= {"score": mean, "low": low, "high": high, "baseline": float(baseline.mean())}
        row |= {"gain": gain[0], "gain_low": gain[1], "gain_high": gain[2]}
        return [row | {"trials": len(scores), "clients": len(scores)}]

    def rows(self, attack: str, view: str, trials: Mapping[str, Trials]) -> list[Row]:
        """Return a row for the trials of each attacker."""
        rows = []
        for attacker, found in trials.items():
            area, low, high = auc_interval(found, seed=self._settings.seed)
            row: Row = {"attack": attack, "view": view, "attacker": attacker, "auc": area, "low": low, "high": high}
            rows.append(row | {"trials": len(found.scores), "clients": len(np.unique(found.client))})
        return rows

    def _rng(self, attack: str, view: View) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, *attack.encode(), *view.name.encode()])


def clients_of(fleet: ShadowFleet, numbers: NDArray[np.int64], vectors: NDArray[np.float64]) -> Clients:
    """Return the clients `numbers` with what they send and hold."""
    held, labels = fleet.held(numbers), fleet.dataset.train_labels
    kinds = np.arange(len(fleet.backbone.labels))
    return Clients(vectors, held, (held @ (labels[:, None] == kinds)).astype(bool).astype(np.float64))
