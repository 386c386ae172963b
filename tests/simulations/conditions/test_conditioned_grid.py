import numpy as np
import pytest
from flwr.app import Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto

from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsError, StatisticsLayout
from simulations.attacks.fields import echo
from simulations.attacks.registry import ATTACKS
from simulations.conditions.grid import ConditionedGrid
from simulations.conditions.roles import assign_roles
from simulations.conditions.settings import Attackers, Conditions, DeviceClass, LateJoiners
from simulations.engine import InProcessGrid, node_id
from strategies.protocol import PLAN, plan_record, read_plan, read_reply, reply_content

pytestmark = pytest.mark.usefixtures("task_identity")

LAYOUT = StatisticsLayout(layers=4, levels=2, groups=8)
CLIENTS = 20
CLIENT_OF = {node_id(client): client for client in range(CLIENTS)}


def own_vector(client, version):
    rng = np.random.default_rng([client, version])
    vector = rng.random(LAYOUT.size)
    vector[LAYOUT.field("weighted_sensitivity")] *= vector[LAYOUT.field("precision")]
    return vector.astype("<f2").astype(np.float64)


class Fleet:
    """A conditioned grid over clients that answer valid vectors; of `broken`, the first fails and the others answer
    another plan."""

    def __init__(self, conditions, *, seed=3, broken=()):
        self.asked = []
        app = ClientApp()

        def answer(message, context):
            client, (plan, _, _) = context.node_config["partition-id"], read_plan(message.content)
            self.asked.append((plan.version, client))
            if client in broken[:1]:
                return Message(Error(2, ""), reply_to=message)
            version = -1 if client in broken[1:] else plan.version
            return Message(reply_content(own_vector(client, plan.version), version), reply_to=message)

        app.train()(answer)
        app.evaluate()(answer)
        self.roles = assign_roles(conditions, CLIENTS, seed)
        inner = InProcessGrid(app, clients=CLIENTS, run_config={})
        self.grid = ConditionedGrid(inner, conditions, self.roles, client_of=CLIENT_OF.__getitem__, seed=seed)

    def ask(self, version=1, clients=range(CLIENTS), message_type=MessageType.TRAIN, plan=None):
        """Return the replies by client."""
        messages = [request(client, version, message_type, plan) for client in clients]
        return {CLIENT_OF[r.metadata.src_node_id]: r for r in self.grid.send_and_receive(messages, timeout=9.0)}

    def status(self, version=1):
        return {event["client"]: event["status"] for event in self.grid.events if event["round"] == version}


def make_plan(version, budget=0.5):
    prior = Prior(np.linspace(0.01, 0.1, LAYOUT.atoms), np.ones(LAYOUT.atoms))
    return Plan(version=version, prior=prior, dropped=np.zeros(LAYOUT.groups, dtype=bool), probes=3, budget=budget)


def request(client, version, message_type=MessageType.TRAIN, plan=None):
    content = RecordDict({PLAN: plan_record(plan or make_plan(version), LAYOUT, bytes(32))})
    return Message(content, node_id(client), message_type, ttl=9.0, group_id=str(version))


def vectors(replies, version=1):
    return {client: read_reply(reply.content, LAYOUT, version) for client, reply in replies.items()}


def test_without_conditions_everybody_replies_what_it_has_to_say():
    fleet = Fleet(Conditions())
    replies = fleet.ask()
    assert list(replies) == list(range(CLIENTS))
    for client, vector in vectors(replies).items():
        np.testing.assert_array_equal(vector, own_vector(client, 1))
    assert fleet.grid.events == [{"round": 1, "client": c, "status": "replied"} for c in range(CLIENTS)]


def test_attackers_of_kind_none_are_honest():
    fleet = Fleet(Conditions(attack=Attackers(kind="none", share=0.25)))
    assert fleet.roles.attackers
    for client, vector in vectors(fleet.ask()).items():
        np.testing.assert_array_equal(vector, own_vector(client, 1))
    assert set(fleet.status().values()) == {"replied"}


def test_clients_that_are_away_are_not_reached_and_do_not_reply():
    fleet = Fleet(Conditions(dropout=0.4))
    replies = fleet.ask()
    away = {client for client, status in fleet.status().items() if status == "dropped"}
    assert 0 < len(away) < CLIENTS
    assert set(replies) == set(range(CLIENTS)) - away == {client for _, client in fleet.asked}


def test_stragglers_do_their_work_but_their_replies_are_lost():
    fleet = Fleet(Conditions(stragglers=0.4))
    replies = fleet.ask()
    slow = {client for client, status in fleet.status().items() if status == "straggler"}
    assert 0 < len(slow) < CLIENTS
    assert set(replies) == set(range(CLIENTS)) - slow
    assert {client for _, client in fleet.asked} == set(range(CLIENTS))


def test_rates_are_those_that_were_asked_for_and_slow_devices_are_late_more_often():
    devices = (DeviceClass(name="phone", share=0.5, speed=0.5), DeviceClass(name="laptop", share=0.5, speed=2.0))
    fleet = Fleet(Conditions(dropout=0.2, stragglers=0.25, devices=devices))
    late = np.zeros((2, 2))
    for version in range(1, 81):
        fleet.ask(version)
        for client, status in fleet.status(version).items():
            late[fleet.roles.device_class[client]] += [status == "straggler", status != "dropped"]
    share = late[:, 0] / late[:, 1]
    assert late[:, 1].sum() / (80 * CLIENTS) == pytest.approx(0.8, abs=0.04)
    np.testing.assert_allclose(share, [0.4, 0.1], atol=0.05)


def test_the_final_pass_reaches_everybody():
    fleet = Fleet(Conditions(dropout=0.5, stragglers=0.5))
    assert set(fleet.ask(4, message_type=MessageType.EVALUATE)) == set(range(CLIENTS))


def test_the_fate_of_a_client_depends_on_seed_and_round_and_on_nobody_else():
    conditions = Conditions(dropout=0.3, stragglers=0.3)
    whole, part = Fleet(conditions), Fleet(conditions)
    for version in (1, 2):
        whole.ask(version)
        part.ask(version, clients=[11, 4])
        part.ask(version, clients=[4])
        assert part.status(version) == {c: whole.status(version)[c] for c in (4, 11)}
    assert whole.status(1) != whole.status(2)
    other = Fleet(conditions, seed=4)
    other.ask()
    assert other.status(1) != whole.status(1)


@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if kind != "invalid"])
@pytest.mark.parametrize("message_type", [MessageType.TRAIN, MessageType.EVALUATE])
def test_attackers_answer_valid_lies_after_the_honest_and_never_run_the_client(kind, message_type):
    fleet = Fleet(Conditions(attack=Attackers(kind=kind)))
    replies = fleet.ask(2, message_type=message_type)
    told = vectors(replies, version=2)
    assert set(told) == set(range(CLIENTS))
    assert (
        set(list(replies)[-4:]) == fleet.roles.attackers == {c for c, s in fleet.status(2).items() if s == "attacker"}
    )
    assert {client for _, client in fleet.asked} == set(range(CLIENTS)) - fleet.roles.attackers
    for client in set(range(CLIENTS)) - fleet.roles.attackers:
        np.testing.assert_array_equal(told[client], own_vector(client, 2))


def test_invalid_replies_are_refused_by_who_reads_them():
    fleet = Fleet(Conditions(attack=Attackers(kind="invalid")))
    replies = fleet.ask()
    for attacker in fleet.roles.attackers:
        with pytest.raises(StatisticsError):
            read_reply(replies[attacker].content, LAYOUT, 1)


def test_forged_replies_are_flower_messages_like_all_others():
    fleet = Fleet(Conditions(attack=Attackers(kind="random")))
    messages = [request(client, 1) for client in range(CLIENTS)]
    replies = list(fleet.grid.send_and_receive(messages))
    ids = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    assert len(ids) == CLIENTS
    assert {r.metadata.reply_to_message_id: r.metadata.src_node_id for r in replies} == ids
    sizes = [message_to_proto(reply).ByteSize() for reply in replies]
    assert max(sizes) - min(sizes) < 64  # ids of clients, and times, are of variable length


def test_what_an_attacker_sees_are_the_honest_vectors_that_arrive():
    conditions = Conditions(stragglers=0.4, attack=Attackers(kind="mimic"))
    fleet = Fleet(conditions)
    told = vectors(fleet.ask())
    honest = [told[client] for client, status in fleet.status().items() if status == "replied"]
    for attacker in fleet.roles.attackers:
        assert any(np.array_equal(told[attacker], vector) for vector in honest)


def test_attackers_that_nobody_honest_replies_with_see_the_plan_alone():
    fleet = Fleet(Conditions(attack=Attackers(kind="mimic")))
    told = vectors(fleet.ask(clients=sorted(fleet.roles.attackers)))
    expected = echo(make_plan(1), LAYOUT).join()[0]
    for vector in told.values():
        np.testing.assert_allclose(vector, expected, atol=1e-3)


def test_attackers_with_different_plans_each_answer_their_own():
    fleet = Fleet(Conditions(attack=Attackers(kind="free-rider")))
    first, second, *_ = sorted(fleet.roles.attackers)
    messages = [request(client, 1, plan=make_plan(1, budget)) for client, budget in ((first, 0.25), (second, 0.75))]
    told = [read_reply(reply.content, LAYOUT, 1) for reply in fleet.grid.send_and_receive(messages)]
    assert [vector[LAYOUT.field("level")][0] for vector in told] == [0.75, 0.25]


@pytest.mark.parametrize("kind", ["random", "sign-flip", "a-little-is-enough"])
def test_lies_follow_from_the_seed_and_the_round(kind):
    conditions = Conditions(attack=Attackers(kind=kind))
    once, again, other = Fleet(conditions), Fleet(conditions), Fleet(conditions, seed=8)
    first, second = vectors(once.ask()), vectors(again.ask())
    for client, vector in first.items():
        np.testing.assert_array_equal(vector, second[client])
    assert other.roles.attackers != once.roles.attackers
    next_round = vectors(once.ask(2), version=2)
    assert all((first[client] != next_round[client]).any() for client in once.roles.attackers)


def test_late_joiners_are_not_there_until_their_round_was_asked():
    fleet = Fleet(Conditions(late=LateJoiners(share=0.25, after_round=2)))

    def present():
        return {CLIENT_OF[node] for node in fleet.grid.get_node_ids()}

    early = set(range(CLIENTS)) - fleet.roles.late
    assert len(fleet.roles.late) == 5
    assert present() == early
    fleet.ask(1, clients=sorted(early))
    assert present() == early
    fleet.ask(2, clients=sorted(early))
    assert present() == set(range(CLIENTS))


def test_errors_and_garbage_are_failures_of_their_clients_and_are_passed_on():
    fleet = Fleet(Conditions(attack=Attackers(kind="mimic")), broken=(1, 2))
    honest = set(range(CLIENTS)) - fleet.roles.attackers
    assert {1, 2} <= honest
    replies = fleet.ask()
    assert replies[1].has_error()
    assert {client for client, status in fleet.status().items() if status == "failed"} == {1, 2}
    assert set(replies) == set(range(CLIENTS))


def test_a_client_that_is_asked_again_in_a_round_has_one_event_with_what_became_of_it():
    fleet = Fleet(Conditions(), broken=(1,))
    fleet.ask(clients=[0, 1])
    assert fleet.status() == {0: "replied", 1: "failed"}
    fleet.ask(clients=[1, 0])
    assert fleet.grid.events == [
        {"round": 1, "client": 0, "status": "replied"},
        {"round": 1, "client": 1, "status": "failed"},
    ]


def test_pushed_messages_meet_the_same_conditions_and_are_pulled_once():
    conditions = Conditions(dropout=0.3, attack=Attackers(kind="random"))
    fleet, reference = Fleet(conditions), Fleet(conditions)
    ids = list(fleet.grid.push_messages([request(client, 1) for client in range(CLIENTS)]))
    pulled = {CLIENT_OF[r.metadata.src_node_id]: r for r in fleet.grid.pull_messages(ids)}
    assert len(set(ids)) == CLIENTS
    assert set(pulled) == set(reference.ask())
    assert fleet.grid.events == reference.grid.events
    assert fleet.grid.pull_messages(ids) == []
