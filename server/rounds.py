"""The server's loop: rounds, then a final pass in which every client gets its personal model."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from flwr.app import ConfigRecord, MessageType
from flwr.serverapp import Grid
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.statistics import SCALARS
from server.backbone import GenericBackbone
from server.exchange import NO_REPLY, Outcome, Traffic, exchange, is_invalid
from server.journal import Journal, extend_journal, open_journal, write_json
from server.planning import FleetKnowledge, learn
from server.private_rounds import NO_PRIVACY, PrivateRounds, ServerNoise, system_noise
from server.sampling import quorum_size, sample_nodes, wait_for_nodes
from server.secure_sums import SecureSums, reduce_sums, why_nothing
from server.settings import ServerSettings
from server.signing import PlanSigner
from server.signing_key import next_series, read_signing_key
from strategies.base import Strategy

OnRound = Callable[[dict[str, Any]], None]
RESULTS = "rounds.json"
_WHOLE_FLEET = -1
# A device whose budget is spent sits out. When all have, rounds teach nothing more, and everybody still gets a model.
_SITTING_OUT = frozenset({NO_REPLY, ClientFailure.BUDGET_SPENT.name.lower()})


class FleetServer:
    """Drives a fleet through a run, journals every round, and goes on from the journal after a crash."""

    def __init__(
        self,
        settings: ServerSettings,
        backbone: GenericBackbone,
        strategy: Strategy,
        *,
        run_config: Mapping[str, Any],
        on_round: OnRound | None = None,
        noise: ServerNoise = system_noise,
    ) -> None:
        """Open the journal, and give `strategy` the state that it had. Raises UserError as `open_journal` does,
        and for a signing key that can't be used.

        run_config: what the journal remembers of the settings. on_round: called with each round's record.
        noise: what the server's noise is drawn from, for each plan.
        """
        self.settings, self.backbone, self.strategy = settings, backbone, strategy
        self.folder = settings.journal_dir or settings.out / "server"
        self._on_round = on_round or (lambda record: None)
        self._group_layer = np.repeat(
            np.arange(len(backbone.groups)), [len(layer_groups) for layer_groups in backbone.groups]
        )
        self.journal = _open(settings, self.folder, backbone, run_config)
        self._signer = _make_signer(settings, self.journal)
        secure = settings.secure_aggregation != "off"
        self._private = None
        if settings.privacy.mode != "off":
            self._private = PrivateRounds(
                settings=settings.privacy, rounds=settings.rounds, fraction=settings.fraction, noise=noise
            )
        self._secure = SecureSums(settings, series=self.journal.series, signer=self._signer) if secure else None
        strategy.restore(self.journal.strategy)

    def run(self, grid: Grid) -> Journal:
        """Run the rounds that the journal does not hold yet, and the final pass. Raises UserError."""
        self.journal.save(self.folder)
        for number in range(len(self.journal.rounds) + 1, self._goal + 1):
            self._on_round(self._round(grid, number))
        if self.journal.final is None:
            self._on_round(self._final_pass(grid))
        write_json(self.folder / RESULTS, {"rounds": self.journal.rounds, "final": self.journal.final})
        return self.journal

    @property
    def _goal(self) -> int:
        return self.journal.goal or self.settings.rounds

    def _round(self, grid: Grid, number: int) -> dict[str, Any]:
        started = time.perf_counter()
        nodes = self._nodes(grid)
        sampled = self._sample(nodes, number)
        if self._secure is not None:
            record = self._sum_round(grid, number, sampled, self._secure)
        else:
            outcome = self._exchange(grid, number, sampled, self.settings.probes, MessageType.TRAIN)
            record = self._record(number, len(sampled), outcome)
            if len(outcome.vectors) >= quorum_size(len(sampled), self.settings.quorum):
                self._learn(outcome, number, record)
        record["seconds"] = time.perf_counter() - started
        self.journal.rounds.append(record)
        self.journal.begun = []
        self.journal.save(self.folder)
        return record

    def _sample(self, nodes: list[int], number: int) -> list[int]:
        """Return who is asked in a round; in a run with noise it is in the journal before anybody is."""
        seed = self.settings.seed
        if self._private is None:
            return sample_nodes(nodes, fraction=self.settings.fraction, seed=seed, round_number=number)
        repeats = self._secure is None
        sampled = self._private.begin(nodes, self.journal, seed=seed, round_number=number, repeats=repeats)
        self.journal.save(self.folder)
        return sampled

    def _sum_round(self, grid: Grid, number: int, sampled: list[int], secure: SecureSums) -> dict[str, Any]:
        """Run a round of which the server learns sums alone, and return its record."""
        plan = self._plan(self.journal.knowledge, number, self.settings.probes)
        # Saved first: a client masks once for a number, and would refuse it after a restart.
        self.journal.sums += 1
        self.journal.save(self.folder)

        def ask(records: Mapping[int, ConfigRecord]) -> Outcome:
            return self._send(grid, plan, sorted(records), MessageType.TRAIN, records)

        found = secure.round(grid, self.backbone, plan, sampled, number=self.journal.sums, ask=ask)
        if sum(count for name, count in found.outcome.failures.items() if name not in _SITTING_OUT) >= len(sampled):
            self._nobody(number, sampled, found.outcome)
        self.journal.nodes.update(found.outcome.lacking)
        record = {**self._record(number, len(sampled), found.outcome), "secure": found.record()}
        quorum = quorum_size(len(sampled), self.settings.quorum)
        if self._private is not None:
            missing = why_nothing(found, quorum)
            if missing is not None:
                record["not_learned"] = missing
            else:
                known, layout = self.journal.knowledge, self.backbone.layout
                self.journal.knowledge = self._private.learn_sums(known, plan, found.totals, layout)
            return record
        reduced = reduce_sums(found, self.strategy, self.backbone.layout, quorum=quorum)
        if isinstance(reduced, str):
            record["not_learned"] = reduced
        else:
            self.journal.knowledge = self._learned(self.journal.knowledge, reduced, found.clients, number)
            self._learned_all(reduced, record)
        return record

    def _final_pass(self, grid: Grid) -> dict[str, Any]:
        started = time.perf_counter()
        nodes = self._nodes(grid)
        number, placing = self._goal + 1, Traffic()
        unplaced = [node for node in nodes if node not in self.journal.placed] if self.strategy.groups > 1 else []
        if unplaced and not self.journal.placed_late:
            # A client that no round has asked is placed by its first statistics, and only then gets its group's plan.
            first = self._exchange(grid, number, unplaced, self.settings.probes, MessageType.TRAIN)
            self.journal.placed.update(self.strategy.place(first.vectors, self.backbone.layout))
            self.journal.placed_late, placing = True, first.traffic
            # Saved at once: clients that answer the next version refuse this one from then on.
            self.journal.save(self.folder)
        number += self.journal.placed_late
        outcome = self._exchange(grid, number, nodes, self.settings.final_probes, MessageType.EVALUATE)
        outcome.traffic.add(placing)
        record = self._record(number, len(nodes), outcome)
        record["seconds"] = time.perf_counter() - started
        self.journal.final = record
        self.journal.save(self.folder)
        return record

    def _nodes(self, grid: Grid) -> list[int]:
        return wait_for_nodes(grid, fewest=self.settings.min_nodes, deadline=self.settings.node_deadline)

    def _exchange(self, grid: Grid, number: int, nodes: list[int], probes: int, message_type: str) -> Outcome:
        """Send every node the plan of its group. Raises UserError if nobody can answer, however often it is asked."""
        outcome = Outcome()
        records = None if self._secure is None else self._secure.withholding(nodes, self.journal.sums)
        for group, members in sorted(self._groups(nodes).items()):
            known = self.journal.groups.get(group, self.journal.knowledge)
            plan = self._plan(known, number, probes, release=message_type == MessageType.TRAIN)
            outcome.add(self._send(grid, plan, members, message_type, records))
        told = any(name not in _SITTING_OUT and not is_invalid(name) for name in outcome.failures)
        if not outcome.replied and (message_type == MessageType.EVALUATE or told):
            self._nobody(number, nodes, outcome)
        self.journal.nodes.update(outcome.lacking)
        return outcome

    def _plan(self, knowledge: FleetKnowledge, number: int, probes: int, *, release: bool = True) -> Plan:
        version, layout = number + self.journal.passed, self.backbone.layout
        plan = knowledge.plan(layout, version=version, probes=probes, budget=self.settings.budget)
        return plan if self._private is None else self._private.told(plan, knowledge, layout, release=release)

    def _send(
        self,
        grid: Grid,
        plan: Plan,
        nodes: list[int],
        message_type: str,
        secure: Mapping[int, ConfigRecord] | None,
    ) -> Outcome:
        return exchange(
            grid,
            self.backbone,
            plan,
            nodes,
            believed=self.journal.nodes,
            message_type=message_type,
            deadline=self.settings.deadline,
            signer=self._signer,
            secure=secure,
        )

    def _nobody(self, number: int, nodes: list[int], outcome: Outcome) -> NoReturn:
        reasons = ", ".join(f"{count} {name}" for name, count in sorted(outcome.failures.items()))
        raise UserError(f"round {number}: no client of {len(nodes)} replied ({reasons}); see the clients' own logs")

    def _groups(self, nodes: list[int]) -> dict[int, list[int]]:
        """Return the nodes of each group; those that belong to none yet get the fleet's plan."""
        groups: dict[int, list[int]] = {}
        for node in nodes:
            groups.setdefault(self.journal.placed.get(node, _WHOLE_FLEET), []).append(node)
        return groups

    def _learn(self, outcome: Outcome, number: int, record: dict[str, Any]) -> None:
        """Learn from a round for the fleet and for each group, and note in the round's record what came of it."""
        journal, layout = self.journal, self.backbone.layout
        if self._private is not None:
            plan = self._plan(journal.knowledge, number, self.settings.probes)
            rows = [outcome.vectors[node] for node in sorted(outcome.vectors)]
            journal.knowledge = self._private.learn_open(journal.knowledge, plan, rows, layout)
            return
        vectors = dict(sorted(outcome.vectors.items()))
        try:
            self.strategy.check_cohort(len(vectors))
        except UserError as error:
            record["not_learned"] = str(error)
            return
        before, reduced = journal.knowledge, self.strategy(list(vectors.values()), layout)
        journal.knowledge = self._learned(before, reduced, len(vectors), number)
        if self.strategy.groups > 1:
            journal.placed.update(self.strategy.place(vectors, layout))
            for group, members in self._groups(list(vectors)).items():
                if group != _WHOLE_FLEET and self._enough(len(members)):
                    own = self.strategy([vectors[node] for node in members], layout)
                    known = journal.groups.get(group, before)
                    journal.groups[group] = self._learned(known, own, len(members), number)
        self._learned_all(reduced, record)

    def _learned_all(self, reduced: NDArray[np.float64], record: dict[str, Any]) -> None:
        self.journal.strategy = self.strategy.state()
        scalars = reduced[self.backbone.layout.field("scalars")]
        record["fleet"] = dict(zip(SCALARS, scalars.tolist(), strict=True))

    def _enough(self, clients: int) -> bool:
        try:
            self.strategy.check_cohort(clients)
        except UserError:
            return False
        return True

    def _learned(
        self, knowledge: FleetKnowledge, reduced: NDArray[np.float64], clients: int, number: int
    ) -> FleetKnowledge:
        return learn(
            knowledge,
            reduced,
            self.backbone.layout,
            self._group_layer,
            clients=clients,
            round_number=number,
            settings=self.settings.planning,
        )

    def _record(self, number: int, sampled: int, outcome: Outcome) -> dict[str, Any]:
        traffic = outcome.traffic
        return {
            "round": number,
            "clients_sampled": sampled,
            "clients_replied": outcome.replied,
            "failures": dict(sorted(outcome.failures.items())),
            "dropped_replies": dict(sorted(outcome.dropped.items())),
            "dropped_units": self.backbone.units(self.journal.knowledge.dropped),
            "uplink_bytes": traffic.uplink_bytes,
            "downlink_bytes": traffic.downlink_bytes,
            "replies": traffic.replies,
            "first_contacts": traffic.first_contacts,
            "first_contact_bytes": traffic.first_contact_bytes,
            "later_messages": traffic.later,
            "later_bytes": traffic.later_bytes,
            "privacy": NO_PRIVACY if self._private is None else self._private.record(self.journal),
        }


def _open(settings: ServerSettings, folder: Path, backbone: GenericBackbone, run_config: Mapping[str, Any]) -> Journal:
    empty = FleetKnowledge.empty(backbone.layout)
    if settings.extend:
        return extend_journal(folder, settings=run_config, root=backbone.root, empty=empty, rounds=settings.rounds)
    return open_journal(folder, settings=run_config, root=backbone.root, empty=empty, resume=settings.resume)


def _make_signer(settings: ServerSettings, journal: Journal) -> PlanSigner | None:
    if settings.signing_key_file is None:
        return None
    key = read_signing_key(settings.signing_key_file)
    if not journal.series:
        journal.series = next_series(settings.signing_key_file)
    return PlanSigner(key, journal.series)
