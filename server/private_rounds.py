"""What a server does differently in a run with noise: whom it asks, what it learns, and what it says of its cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.wire.plan import Plan
from personalization.wire.privacy_terms import PrivacyTerms
from personalization.wire.statistics import StatisticsLayout
from server.journal import Journal
from server.planning import FleetKnowledge
from server.sampling import sample_size
from strategies.privacy.accounting import epsilon_of
from strategies.privacy.discrete_gaussian import Integers
from strategies.privacy.estimate import Estimate, observation_variance, observe, worth_telling
from strategies.privacy.mechanism import make_chain
from strategies.privacy.postprocessor import apply_on_server, from_grid, to_grid
from strategies.privacy.release import FIRST_CENTRE, centre_of, measured_share
from strategies.privacy.settings import PrivacySettings, most_answers
from strategies.privacy.view import noise_in_sum
from strategies.secure_aggregation.entropy import Entropy, system_entropy
from strategies.secure_aggregation.graph import ALL_PAIRS
from strategies.secure_aggregation.server import SecureTotal

# What a run without noise says of its privacy.
NO_PRIVACY = "none"
# Information is kept as precision, in clean looks of a client: a standard deviation of 0.1 on the scale of the wire.
LOOK = 0.1
Vector = NDArray[np.float64]
# Takes a round's plan, and returns what the server draws the noise of that round's sum from.
ServerNoise = Callable[[Plan], Entropy]


def system_noise(plan: Plan) -> Entropy:
    """Draw every round's noise from the operating system."""
    del plan
    return system_entropy


@dataclass(frozen=True, kw_only=True)
class PrivateRounds:
    """The noise of one run. rounds, fraction: of the run. noise: where central noise comes from."""

    settings: PrivacySettings
    rounds: int
    fraction: float
    noise: ServerNoise

    def terms(self, *, release: bool) -> PrivacyTerms:
        """Return what plans say; `release`: whether they ask for statistics."""
        return replace(self._terms, release=release)

    def begin(
        self, nodes: Sequence[int], journal: Journal, *, seed: int, round_number: int, repeats: bool
    ) -> list[int]:
        """Return who is asked in a round, and note in the journal that they are, before they are asked.

        repeats: whether devices answer the same plan with the same vector, as they do in the open. Then a round that
        was begun before the server stopped is taken up with the same devices, and costs nothing a second time: they
        charge it once, and nothing was released of it. Of a sum they would charge both, so others are asked.
        """
        again = [node for node in journal.begun if node in set(nodes)]
        if again:
            return again
        sampled = self.sample(nodes, journal, seed=seed, round_number=round_number)
        self.charge(sampled, journal)
        journal.begun = sampled if repeats else []
        return sampled

    def sample(self, nodes: Sequence[int], journal: Journal, *, seed: int, round_number: int) -> list[int]:
        """Return who is asked, sorted: in turn, so that nobody answers more often than the budget is shared out for.

        Those who were asked least come first, drawn with the seed among equals. Who has had all its turns is left out.
        """
        rng = np.random.default_rng([seed, round_number])
        order = {node: place for place, node in enumerate(rng.permutation(np.array(sorted(nodes), dtype=np.uint64)))}
        most = most_answers(self.rounds, self.fraction)
        left = [node for node in nodes if journal.asked.get(node, 0) < most]
        left.sort(key=lambda node: (journal.asked.get(node, 0), order[node]))
        return sorted(left[: sample_size(len(nodes), self.fraction)])

    def charge(self, nodes: Sequence[int], journal: Journal) -> None:
        """Note in the journal, before they are asked, that these nodes may answer."""
        cost = self.settings.round_rho(rounds=self.rounds, fraction=self.fraction)
        for node in nodes:
            journal.asked[node] = journal.asked.get(node, 0) + 1
            journal.spent[node] = journal.spent.get(node, 0.0) + cost

    def record(self, journal: Journal) -> dict[str, Any]:
        """Return what a round's record says of privacy: of the client that has been asked most, in all runs."""
        terms, delta = self._terms, self.settings.delta
        return {
            "mode": terms.mode,
            "epsilon": epsilon_of(max(journal.spent.values(), default=0.0), delta),
            "delta": delta,
            "clip": terms.clip,
            "noise_multiplier": terms.multiplier,
            "answers_most": max(journal.asked.values(), default=0),
        }

    def told(self, plan: Plan, knowledge: FleetKnowledge, layout: StatisticsLayout, *, release: bool) -> Plan:
        """Return the plan with its terms, and without a prior that noise has left worth nothing."""
        known = worth_telling(_estimate(knowledge, layout), layout)
        return replace(plan, prior=plan.prior if known else None, privacy=self.terms(release=release))

    def learn_open(
        self, knowledge: FleetKnowledge, plan: Plan, vectors: Iterable[Vector], layout: StatisticsLayout
    ) -> FleetKnowledge:
        """Learn from vectors [entries] on the grid, once noise is added to their sum."""
        rows = [vector.astype(np.int64) for vector in vectors]
        noise = noise_in_sum(self._terms, clients=len(rows), cohort=len(rows))
        return self._learn(knowledge, plan, layout, np.sum(rows, axis=0), clients=len(rows), noise=noise)

    def learn_sums(
        self, knowledge: FleetKnowledge, plan: Plan, totals: Sequence[SecureTotal], layout: StatisticsLayout
    ) -> FleetKnowledge:
        """Learn from a round's secure sums; each has the noise of its clients, or central noise is added to all."""
        rows = [to_grid(total.vector, self._terms, nearest=True) for total in totals]
        each = [noise_in_sum(self._terms, clients=len(one.clients), cohort=one.cohort) for one in totals]
        noise = sum(each) if self._terms.mode == "distributed" else each[0]
        clients = sum(len(total.clients) for total in totals)
        return self._learn(knowledge, plan, layout, np.sum(rows, axis=0), clients=clients, noise=noise)

    @property
    def _terms(self) -> PrivacyTerms:
        return self.settings.terms(rounds=self.rounds, fraction=self.fraction)

    def _learn(
        self,
        knowledge: FleetKnowledge,
        plan: Plan,
        layout: StatisticsLayout,
        total: Integers,
        *,
        clients: int,
        noise: float,
    ) -> FleetKnowledge:
        """noise: variance of an entry of the sum, scale of the wire."""
        noisy = apply_on_server(make_chain(self._terms, min(clients, ALL_PAIRS)), total, self.noise(plan))
        share = measured_share(plan, layout)
        observed = centre_of(plan, layout) + from_grid(noisy, self._terms) / (clients * share)
        variance = observation_variance(noise, clients=clients, share=share)
        after = observe(_estimate(knowledge, layout), observed, variance, layout)
        precision = np.full(layout.atoms, after.information * LOOK**2)
        return replace(knowledge, precision=precision, weighted=precision * after.mean)


def _estimate(knowledge: FleetKnowledge, layout: StatisticsLayout) -> Estimate:
    """Return what `_learn` kept: information as precision, the same for all atoms."""
    if not knowledge.precision.any():
        return Estimate(np.full(layout.atoms, FIRST_CENTRE))
    return Estimate(knowledge.weighted / knowledge.precision, float(knowledge.precision[0]) / LOOK**2)
