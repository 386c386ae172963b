import json

import numpy as np
import pytest
from secure_run import CLIENTS, IDENTITIES, OpenSum, SecureRun

from client.entries import KEYRING, PARTICIPATION, VAULT
from client.node_file import SMALLEST
from client.state import ClientState
from client.vault.access import find_access
from client.vault.keys import create_key_file
from personalization.errors import UserError
from simulations.engine import node_id
from simulations.identities import SimulatedIdentities
from strategies.protocol import SECURE
from strategies.secure_aggregation.keyring import Keyring
from strategies.secure_aggregation.messages import PAIR_REQUEST, SHARE_REQUEST
from strategies.secure_protocol import MESSAGE, Step

SUMMED = {"clients": CLIENTS, "cohorts": 1, "vanished": 0, "rejected": {}}


def kind(message) -> int:
    """The kind of the protocol's message that a request carries."""
    return message.content[SECURE][MESSAGE][0]


def test_a_run_of_secure_sums_plans_what_sums_in_the_open_plan(tmp_path):
    secure = SecureRun(tmp_path / "secure", rounds=3)
    strategy = OpenSum()
    run = SecureRun.__new__(SecureRun)
    strategy.run = run
    run.__init__(tmp_path / "open", mode="off", strategy=strategy, sums_only=False, rounds=3)
    assert len(secure.plans) == 4 * CLIENTS
    assert secure.plans == run.plans
    np.testing.assert_array_equal(secure.journal.knowledge.weighted, run.journal.knowledge.weighted)
    np.testing.assert_array_equal(secure.journal.knowledge.kept, run.journal.knowledge.kept)
    assert [record["secure"] for record in secure.journal.rounds] == [SUMMED] * 3
    assert [r["fleet"] for r in secure.journal.rounds] == [r["fleet"] for r in run.journal.rounds]


def test_a_round_takes_one_exchange_more_than_in_the_open_once_keys_are_known(tmp_path):
    steps = SecureRun(tmp_path, rounds=2).grid.steps
    assert [step for version, step in steps if version == 1] == [
        step for step in (Step.ADVERTISE, Step.MASK, Step.REVEAL) for _ in range(CLIENTS)
    ]
    assert [step for version, step in steps if version == 2] == [Step.MASK] * CLIENTS + [Step.REVEAL] * CLIENTS
    assert {step for version, step in steps if version == 3} == {Step.WITHHOLD}


@pytest.mark.parametrize(
    ("stages", "left"),
    [
        ({Step.ADVERTISE: (0, 4, 9)}, 7),
        ({Step.MASK: (0, 4, 9)}, 7),
        ({SHARE_REQUEST: (0, 4, 9)}, 10),
        ({Step.MASK: (1,), PAIR_REQUEST: (5,), SHARE_REQUEST: (8,)}, 8),
    ],
)
def test_any_three_of_ten_may_vanish_at_any_stage(tmp_path, stages, left):
    def lose(version, step, message, client):
        stage = kind(message) if step is Step.REVEAL else step
        return version == 1 and client in stages.get(stage, ())

    run = SecureRun(tmp_path, lose=lose)
    first, second = run.journal.rounds
    gone = {client for stage, clients in stages.items() if stage != SHARE_REQUEST for client in clients}
    rest = sorted(set(range(CLIENTS)) - gone)
    asked = 7 if Step.ADVERTISE in stages else CLIENTS
    assert first["secure"] == {"clients": left, "cohorts": 1, "vanished": asked - left, "rejected": {}}
    assert list(first["fleet"].values()) == run.expected(1, rest)
    assert second["secure"] == SUMMED


def test_what_is_no_answer_to_a_step_is_counted_by_what_is_wrong_with_it(tmp_path):
    adverts = []

    def alter(version, step, raw, client):
        if version == 1 and step is Step.ADVERTISE:
            adverts.append(raw)
            wrong = {2: adverts[0], 3: raw[:-1], 4: raw[:-1] + bytes([raw[-1] ^ 1])}
            return wrong.get(len(adverts), raw)
        return b"?" if version == 2 and step in (Step.MASK, Step.REVEAL) and client == step.value + 2 else raw

    run = SecureRun(tmp_path, alter=alter)
    first, second = (record["secure"] for record in run.journal.rounds)
    codes = {"reply_length": 1, "reply_signature": 1, "reply_copied": 1}
    assert first == {"clients": 7, "cohorts": 1, "vanished": 0, "rejected": codes}
    assert second == {"clients": 8, "cohorts": 1, "vanished": 2, "rejected": {"reply_length": 2}}


def test_below_the_threshold_nothing_is_learned_and_the_run_goes_on(tmp_path):
    run = SecureRun(tmp_path, lose=lambda version, step, message, client: version == 1 and client < 4 and step == 2)
    first, second = run.journal.rounds
    assert "too many vanished" in first["not_learned"]
    assert "Nothing was revealed" in first["not_learned"]
    assert "fleet" not in first
    assert (first["secure"]["clients"], first["secure"]["vanished"]) == (0, CLIENTS)
    assert (1, Step.REVEAL) not in run.grid.steps
    assert second["secure"] == SUMMED
    assert list(second["fleet"].values()) == run.expected(2, range(CLIENTS))


def test_too_few_clients_for_a_sum_are_not_asked_for_anything(tmp_path):
    run = SecureRun(tmp_path, fraction=0.2)
    assert all("secure aggregation of 2 clients" in record["not_learned"] for record in run.journal.rounds)
    assert Step.MASK not in {step for _, step in run.grid.steps}
    assert run.journal.final["clients_replied"] == CLIENTS


def test_a_robust_strategy_gets_the_means_of_random_cohorts(tmp_path):
    run = SecureRun(tmp_path, mode="cohorts", strategy="median", cohort_size=3)
    for record in run.journal.rounds:
        assert record["secure"] == {"clients": CLIENTS, "cohorts": 3, "vanished": 0, "rejected": {}}
    assert run.journal.knowledge.weighted.any()


def test_the_journal_says_nothing_about_a_single_client(tmp_path):
    run = SecureRun(tmp_path)
    record = json.loads((tmp_path / "server" / "journal.json").read_text())
    del record["nodes"]  # what of the backbone each node has
    text = json.dumps(record)
    for client in range(CLIENTS):
        identity = IDENTITIES({"partition-id": client})
        assert str(node_id(client)) not in text
        assert identity.certificate.hex() not in text
    assert set(run.journal.rounds[0]["secure"]) == {"clients", "cohorts", "vanished", "rejected"}


def test_a_device_for_sums_gives_no_vector_in_the_open(tmp_path):
    with pytest.raises(UserError, match="10 open_refused"):
        SecureRun(tmp_path, mode="off")


def test_clients_of_another_fleet_are_not_summed(tmp_path):
    other = SimulatedIdentities(b"o" * 32)
    with pytest.raises(UserError, match="10 sum_refused"):
        run_with_other_server(tmp_path, other)


def run_with_other_server(out, other):
    class Mixed(SimulatedIdentities):
        def write(self, folder):
            return other.write(folder)

    return SecureRun(out, identities=Mixed(b"i" * 32))


def test_a_client_that_lost_its_keys_is_left_out_once_and_comes_back(tmp_path):
    def lose(version, step, message, client):
        if version == 1 and step is Step.REVEAL and client == 3:
            (tmp_path / "clients" / "client-3" / "keyring").unlink()
        return False

    run = SecureRun(tmp_path, rounds=3, lose=lose)
    assert [record["secure"]["clients"] for record in run.journal.rounds] == [10, 9, 10]
    assert run.journal.rounds[1]["failures"] == {"peers_unknown": 1}
    assert list(run.journal.rounds[2]["fleet"].values()) == run.expected(3, range(CLIENTS))


def test_a_run_that_was_killed_within_a_sum_masks_anew(tmp_path):
    class KilledError(Exception):
        pass

    def kill(version, step, message, client):
        if version == 2 and step is Step.REVEAL:
            raise KilledError
        return False

    with pytest.raises(KilledError):
        SecureRun(tmp_path, lose=kill)
    resumed = SecureRun(tmp_path, resume=True)
    assert [record["secure"] for record in resumed.journal.rounds] == [SUMMED] * 2
    assert resumed.journal.sums == 3
    assert list(resumed.journal.rounds[1]["fleet"].values()) == resumed.expected(2, range(CLIENTS))


def test_strategies_that_need_vectors_are_refused_before_anything_is_asked(tmp_path):
    for mode, strategy in (("sum", "median"), ("sum", "mean"), ("cohorts", "clustered:groups=2"), ("all", "median")):
        with pytest.raises(UserError, match="secure-aggregation"):
            SecureRun(tmp_path, mode=mode, strategy=strategy)
    with pytest.raises(UserError, match="cohort-size 2: expected 3"):
        SecureRun(tmp_path, mode="cohorts", cohort_size=2)


def test_a_server_sums_no_fewer_clients_than_it_was_told_to(tmp_path):
    run = SecureRun(tmp_path / "few", smallest_cohort=CLIENTS + 1)
    assert all("10 clients: expected 11 to" in record["not_learned"] for record in run.journal.rounds)
    assert Step.MASK not in {step for _, step in run.grid.steps}
    run = SecureRun(tmp_path / "enough", smallest_cohort=CLIENTS)
    assert [record["secure"] for record in run.journal.rounds] == [SUMMED] * 2


def test_a_device_takes_part_in_no_smaller_sum_than_it_was_told_to(tmp_path):
    strict = {SMALLEST: CLIENTS + 1}
    with pytest.raises(UserError, match="10 sum_refused"):
        SecureRun(tmp_path / "all", node=lambda client: strict)
    run = SecureRun(tmp_path / "two", node=lambda client: strict if client < 2 else {SMALLEST: CLIENTS})
    for record in run.journal.rounds:
        assert record["failures"] == {"sum_refused": 2}
        assert record["secure"]["clients"] == CLIENTS - 2
    text = (tmp_path / "two" / "clients" / "client-0" / "last_error.json").read_text()
    assert "this one takes part in sums of 11 or more" in text


@pytest.mark.parametrize("value", ["10", 2, True])
def test_a_smallest_cohort_that_there_is_not_is_no_permission(tmp_path, value):
    with pytest.raises(UserError, match="10 sum_refused"):
        SecureRun(tmp_path, node=lambda client: {SMALLEST: value})


def test_what_a_device_keeps_between_steps_lies_in_its_vault(tmp_path):
    def node(client: int) -> dict[str, str]:
        key = tmp_path / f"{client}.key"
        if not key.exists():
            create_key_file(key)
        return {"state-dir": str(tmp_path / f"state-{client}"), "vault-key-file": str(key)}

    seen = []

    def look(version, step, message, client):
        if version == 2 and step is Step.MASK and client == 0:  # keyring and participation are there, shares not told
            seen.append(sorted(path.name for path in (tmp_path / "state-0").iterdir()))
        return False

    run = SecureRun(tmp_path / "run", lose=look, node=node)
    assert [record["secure"] for record in run.journal.rounds] == [SUMMED] * 2
    assert len(seen) == 1
    assert not {KEYRING, PARTICIPATION} & set(seen[0])
    for client in range(CLIENTS):
        folder = tmp_path / f"state-{client}"
        access = find_access(node(client), {})
        state = ClientState(folder, access=access)
        assert {KEYRING, PARTICIPATION} <= set(state.vault.names())
        ring = Keyring.from_bytes(state.read(KEYRING))
        secrets = [ring.private, *(peer.key for peer in ring.peers.values())]
        assert len(secrets) == CLIENTS
        stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert not any(secret in stored for secret in secrets)
        assert (folder / VAULT).is_dir()
        assert not (folder / KEYRING).exists()
        assert not (folder / PARTICIPATION).exists()
