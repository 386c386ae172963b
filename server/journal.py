"""The journal of a run: after every round one atomic file with all that a restarted server needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.settings import PersonalizationSettings
from personalization.system.files import write_atomically
from server.planning import FleetKnowledge

JOURNAL = "journal.json"
# What may differ between a run and its continuation: how it is called, not what it computes.
_FREE_KEYS = frozenset({"enrolment-file", "extend", "journal-dir", "out-dir", "resume", "signing-key-file"})
# What may change beside that from one series of rounds to the next of a fleet that goes on.
_CHANGEABLE_KEYS = frozenset(
    {
        "adapters",
        "budget",
        "budget-kind",
        "clip",
        "cohort-size",
        "deadline",
        "delta",
        "epsilon",
        "final-probes",
        "fraction",
        "min-nodes",
        "model",  # where it stands: that it is the same one is told by its hash
        "node-deadline",
        "num-rounds",
        "probes",
        "quorum",
        "recovery",
        "refit-samples",
        "secure-aggregation",
        "smallest-cohort",
        "training-precision",
        "training-steps",
        "tune-first",
        "vocabulary",
        "window-tokens",
        "windows",
    }
)
# What journals that were written before there was such a setting do not say, and what held then.
_IMPLIED = {"layer-limit": PersonalizationSettings.layer_limit}


@dataclass
class Journal:
    """The state of a run.

    settings: the run configuration. root: hash of the backbone in hexadecimal. rounds: one record each, as they stand
    in the report. nodes: for each node id what it lacks, see `GenericBackbone.request`. groups: what is known of each
    group of clients, and placed: the group of each node id, where the strategy makes groups. strategy: its own state.
    final: the record of the final pass, None until it is done. series: the run's number if its plans are signed.
    placed_late: whether the final pass placed clients first, and so took one version more.
    goal: the round after which the final pass comes, 0 if only the settings say so. finals: records of earlier final
    passes, of a run that was extended. passed: how many versions these took, beside those of the rounds. sums: how many
    secure sums were begun in this series: a client masks one vector for each and no more. asked, spent: in runs with
    noise, how often each node id was asked in this run, and the rho of all it was asked for in all runs. begun: who is
    asked in a round with noise that is not done, where devices answer it again as they did before.
    """

    settings: dict[str, Any]
    root: str
    knowledge: FleetKnowledge
    rounds: list[dict[str, Any]] = field(default_factory=list)
    nodes: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    groups: dict[int, FleetKnowledge] = field(default_factory=dict)
    placed: dict[int, int] = field(default_factory=dict)
    strategy: dict[str, list[float]] = field(default_factory=dict)
    final: dict[str, Any] | None = None
    series: int = 0
    placed_late: bool = False
    goal: int = 0
    finals: list[dict[str, Any]] = field(default_factory=list)
    passed: int = 0
    sums: int = 0
    asked: dict[int, int] = field(default_factory=dict)
    spent: dict[int, float] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the journal; a reader sees the old one or the new one, whatever happens."""
        record = {
            "settings": self.settings,
            "root": self.root,
            "knowledge": self.knowledge.to_json(),
            "rounds": self.rounds,
            "nodes": {str(node): np.flatnonzero(lacking).tolist() for node, lacking in self.nodes.items()},
            "groups": {str(group): knowledge.to_json() for group, knowledge in self.groups.items()},
            "placed": {str(node): group for node, group in self.placed.items()},
            "strategy": self.strategy,
            "final": self.final,
            "series": self.series,
            "placed_late": self.placed_late,
            "goal": self.goal,
            "finals": self.finals,
            "passed": self.passed,
            "sums": self.sums,
            "asked": {str(node): times for node, times in self.asked.items()},
            "spent": {str(node): rho for node, rho in self.spent.items()},
            "begun": self.begun,
        }
        write_json(folder / JOURNAL, record)

    def extend(self, rounds: int) -> None:
        """Add `rounds` rounds and a final pass to a run that is finished; one that is not keeps its goal.

        Either way it takes a number of its own among the fleet's runs: devices take nothing older than what they saw,
        and a journal from a backup would be older. Versions go on rising, so devices keep what they have measured.
        """
        self.series = self.sums = 0
        self.begun = []  # what is asked may change, and then nobody answers as before
        if self.final is not None:
            self.passed += 1 + self.placed_late
            self.asked = {}
            self.finals.append(self.final)
            self.final, self.placed_late = None, False
            self.goal = len(self.rounds) + rounds


def load_journal(folder: Path) -> Journal:
    """Return the journal in `folder`. Raises UserError if there is none or it can't be read."""
    path = folder / JOURNAL
    if not path.is_file():
        raise UserError(f"{folder}: no run to resume here; leave out --resume to start one")
    try:
        record = json.loads(path.read_text())
        knowledge = FleetKnowledge.from_json(record["knowledge"])
        nodes = {}
        for node, groups in record["nodes"].items():
            nodes[int(node)] = np.zeros(len(knowledge.dropped), dtype=np.bool_)
            nodes[int(node)][groups] = True
        return Journal(
            record["settings"],
            record["root"],
            knowledge,
            record["rounds"],
            nodes,
            {int(group): FleetKnowledge.from_json(known) for group, known in record["groups"].items()},
            {int(node): int(group) for node, group in record["placed"].items()},
            record["strategy"],
            record["final"],
            int(record.get("series", 0)),
            bool(record.get("placed_late", False)),
            int(record.get("goal", 0)),
            list(record.get("finals", [])),
            int(record.get("passed", 0)),
            int(record.get("sums", 0)),
            {int(node): int(times) for node, times in record.get("asked", {}).items()},
            {int(node): float(rho) for node, rho in record.get("spent", {}).items()},
            [int(node) for node in record.get("begun", [])],
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: damaged journal; start the run again in another folder") from error


def open_journal(
    folder: Path, *, settings: Mapping[str, Any], root: bytes, empty: FleetKnowledge, resume: bool
) -> Journal:
    """Return the journal to go on with: a new one, or with `resume` the one in `folder`.

    Raises UserError if the folder holds another run and `resume` is not set, if there is nothing to resume, or if
    settings or backbone differ; the text says which.
    """
    if not resume:
        if (folder / JOURNAL).exists():
            raise UserError(f"{folder}: holds another run; choose another folder, or continue that run with --resume")
        return Journal(_remembered(settings), root.hex(), empty)
    journal = load_journal(folder)
    _check_same(journal, folder, settings, root, frozenset())
    return journal


def extend_journal(
    folder: Path, *, settings: Mapping[str, Any], root: bytes, empty: FleetKnowledge, rounds: int
) -> Journal:
    """Return the journal of a fleet that goes on: a new one, or the one in `folder`, extended if its run is finished.

    Raises UserError if what was learned does not fit the settings or the backbone any more; how many clients are asked
    for how much may change from one series of rounds to the next.
    """
    if not (folder / JOURNAL).exists():
        return Journal(_remembered(settings), root.hex(), empty, goal=rounds)
    journal = load_journal(folder)
    check_extension(journal, folder, settings=settings, root=root)
    journal.settings = _remembered(settings)
    journal.extend(rounds)
    return journal


def check_extension(journal: Journal, folder: Path, *, settings: Mapping[str, Any], root: bytes) -> None:
    """Raise UserError unless the journal in `folder` can be extended with these settings and this backbone."""
    _check_same(journal, folder, settings, root, _CHANGEABLE_KEYS)


def _check_same(journal: Journal, folder: Path, settings: Mapping[str, Any], root: bytes, free: frozenset[str]) -> None:
    wanted = _remembered(settings)
    known = {**_IMPLIED, **journal.settings}
    keys = sorted({*wanted, *journal.settings} - free)
    changed = [key for key in keys if wanted.get(key) != known.get(key)]
    if changed:
        differences = ", ".join(f"{k} was {known.get(k)!r} and is {wanted.get(k)!r}" for k in changed)
        raise UserError(f"{folder}: cannot resume with different settings: {differences}")
    if journal.root != root.hex():
        raise UserError(f"{folder}: cannot resume with a different model; give the one that the run began with")


def _remembered(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sorted(settings.items()) if key not in _FREE_KEYS}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON atomically; makes the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False).encode())
