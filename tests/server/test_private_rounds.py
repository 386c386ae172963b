"""Rounds with noise, with the real client app: who is asked, what is learned, what is said and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from secure_run import CLIENTS, SecureRun

from client.node_file import EPSILON_BUDGET
from personalization.errors import UserError
from personalization.wire.plan import Plan
from server.journal import load_journal
from server.private_rounds import NO_PRIVACY
from server.settings import ServerSettings
from simulations.noise import SeededEntropy, SimulatedNoise
from strategies.privacy.settings import PrivacySettings

FAST = {"fraction": 0.5}


def private(mode: str, epsilon: float = 4.0) -> PrivacySettings:
    return PrivacySettings(mode=mode, epsilon=epsilon)


@pytest.mark.parametrize(("mode", "secure"), [("central", "off"), ("central", "sum"), ("distributed", "sum")])
def test_nobody_is_asked_twice_and_the_epsilon_is_the_one_that_was_asked_for(tmp_path: Path, mode, secure) -> None:
    run = SecureRun(tmp_path, mode=secure, privacy=private(mode), sums_only=secure != "off", **FAST)
    journal = load_journal(tmp_path / "server")
    assert journal.asked == run.journal.asked
    assert sorted(journal.asked.values()) == [1] * CLIENTS
    last = journal.final["privacy"]
    assert last["epsilon"] == pytest.approx(4.0, rel=1e-3)
    assert (last["mode"], last["delta"], last["answers_most"]) == (mode, 1e-5, 1)
    assert not any("fleet" in record for record in journal.rounds)
    assert not journal.knowledge.dropped.any()
    for record in journal.rounds:
        assert record["clients_replied"] == CLIENTS // 2
        assert "not_learned" not in record
    ledgers = [json.loads((tmp_path / "clients" / f"client-{c}" / "ledger.json").read_text()) for c in range(CLIENTS)]
    assert {ledger["answers"] for ledger in ledgers} == {1}
    assert max(ledger["rho"] for ledger in ledgers) <= max(journal.spent.values())


def test_hardly_any_noise_gives_nearly_the_same_prior_at_either_end(tmp_path: Path) -> None:
    """At an absurd epsilon central and distributed noise vanish, and both learn what the clipped vectors say."""
    runs = {
        mode: SecureRun(tmp_path / mode, mode="sum", privacy=private(mode, epsilon=1e6), **FAST)
        for mode in ("central", "distributed")
    }
    means = [run.journal.knowledge.weighted / run.journal.knowledge.precision for run in runs.values()]
    assert np.abs(means[0] - means[1]).max() < 0.01


def test_a_run_without_noise_says_none(tmp_path: Path) -> None:
    run = SecureRun(tmp_path, mode="off", sums_only=False, rounds=1)
    assert [record["privacy"] for record in [*run.journal.rounds, run.journal.final]] == [NO_PRIVACY] * 2


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"strategy": "median"}, "precision-weighted-mean"),
        ({"secure_aggregation": "off"}, "needs secure-aggregation"),
        ({"probes": 0}, "probes 0"),
    ],
)
def test_runs_that_cannot_be_private_are_refused_in_one_line(tmp_path: Path, changes, line: str) -> None:
    chosen = {"secure_aggregation": "sum", "enrolment_file": tmp_path, **changes}
    if "strategy" in changes:
        chosen |= {"secure_aggregation": "cohorts"}
    with pytest.raises(UserError, match=line):
        ServerSettings(model="m", out=tmp_path, privacy=private("distributed"), **chosen)


@pytest.mark.parametrize("bad", [{"mode": "laplace"}, {"epsilon": 0.0}, {"delta": 1.0}, {"clip": -1.0}])
def test_settings_that_make_no_sense_are_refused(bad) -> None:
    with pytest.raises(UserError, match=next(iter(bad)).replace("mode", "dp")):
        PrivacySettings(**bad)


def test_the_noise_of_a_round_is_its_own_and_the_same_whenever_it_is_drawn() -> None:
    def noise(seed: int, version: int) -> bytes:
        none = np.zeros(4, bool)
        plan = Plan(version=version, prior=None, dropped=none, probes=2, budget=0.5)
        return SimulatedNoise(seed).server(plan)(16)

    assert noise(1, 2) == noise(1, 2)
    assert len({noise(1, 2), noise(1, 3), noise(2, 2)}) == 3


def test_when_all_budgets_are_spent_rounds_teach_nothing_and_everybody_still_gets_a_model(tmp_path: Path) -> None:
    """Two answers a client are planned; each pays for one."""
    once = {EPSILON_BUDGET: 3.2}
    run = SecureRun(
        tmp_path, mode="off", sums_only=False, rounds=2, privacy=private("central"), node=lambda client: once
    )
    first, second = run.journal.rounds
    assert (first["clients_replied"], first["failures"]) == (CLIENTS, {})
    assert (second["clients_replied"], second["failures"]) == (0, {"budget_spent": CLIENTS})
    assert run.journal.final is not None
    assert run.journal.final["clients_replied"] == CLIENTS


def test_seeded_noise_repeats_and_differs_by_what_it_is_for() -> None:
    assert SeededEntropy("a")(8) == SeededEntropy("a")(8)
    assert SeededEntropy("a")(8) != SeededEntropy("b")(8)
    stream = SeededEntropy("a")
    assert stream(8) != stream(8)
