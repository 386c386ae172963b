import numpy as np
import pytest
from conftest import fake_personalize
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from client.app import make_app as make_client_app
from client.data import InputFacts
from client.entries import LEDGER
from client.state import ClientState
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from server.app import make_app as make_server_app
from server.journal import load_journal
from simulations.engine import node_id, run_in_process
from simulations.noise import SimulatedNoise
from simulations.private_data import make_fleet_data


def echo_fleet(ask, clients=3):
    app = ClientApp()

    @app.train()
    def train(message, context):
        seen = ConfigRecord({"partition": context.node_config["partition-id"], "run": context.run_config["x"]})
        message.content["spoiled"] = ConfigRecord({"by": "client"})
        context.state["left"] = ConfigRecord({"n": len(context.state)})
        return Message(RecordDict({"seen": seen, "state": context.state["left"]}), reply_to=message)

    server = ServerApp()
    server.main()(lambda grid, context: ask(grid))
    return run_in_process(server, app, clients=clients, run_config={"x": 7})


def test_flower_still_takes_the_sender_from_its_task_identity():
    """The engine relies on something private: this fails loudly when a Flower upgrade changes it."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 5, 6, 7
    metadata = Message(RecordDict(), 8, MessageType.TRAIN).metadata
    assert (metadata.src_task_id, metadata.run_id, metadata.src_node_id) == (5, 6, 7)
    assert node_id(0) == node_id(0) != node_id(1)


def test_messages_travel_as_copies_and_contexts_do_not_live_on():
    def ask(grid):
        content = RecordDict({"a": ConfigRecord({"b": 1})})
        messages = [Message(content, n, MessageType.TRAIN) for n in grid.get_node_ids() for _ in range(2)]
        replies = list(grid.send_and_receive(messages))
        assert set(content) == {"a"}
        assert [r.content["seen"]["partition"] for r in replies] == [0, 0, 1, 1, 2, 2]
        assert {r.content["seen"]["run"] for r in replies} == {7}
        assert {r.content["state"]["n"] for r in replies} == {0}
        assert [r.metadata.src_node_id for r in replies] == [m.metadata.dst_node_id for m in messages]

    sizes = echo_fleet(ask)
    assert sorted(sizes) == [0, 1, 2]
    assert all(size.down > 0 and size.up > 0 for size in sizes.values())


def test_pushed_messages_are_pulled_once_and_unknown_nodes_are_reported():
    def ask(grid):
        node = next(iter(grid.get_node_ids()))
        ids = list(grid.push_messages([Message(RecordDict(), n, MessageType.TRAIN) for n in (node, 12345)]))
        first, second = grid.pull_messages(ids)
        assert not first.has_error()
        assert second.error.code == 5
        assert grid.pull_messages(ids) == []

    echo_fleet(ask)


class Fleet:
    """A fleet of tiny ViTs with a stand-in for personalization."""

    def __init__(self, model, data, out):
        self.out = out
        self.config = {
            "model": str(model),
            "data": str(data),
            "partition": "classes",
            "classes-per-client": 2,
            "samples": 10,
            "num-rounds": 3,
            "fraction": 0.5,
            "probes": 2,
            "out-dir": str(out),
            "seed": 3,
            "resume": False,
        }

    def run(self, *, personalize=fake_personalize, on_round=None, clients=6, **changes):
        config = {**self.config, **changes}
        backbone = load_backbone(config["model"])
        data = make_fleet_data(config, clients, InputFacts(backbone.preprocessing, backbone.labels))
        size = run_in_process(
            make_server_app(on_round=on_round, noise=SimulatedNoise(config["seed"]).server),
            make_client_app(data, personalize=personalize),
            clients=clients,
            run_config=config,
        )
        return load_journal(self.out / "server"), size

    def state(self, client):
        return ClientState(self.out / "clients" / f"client-{client}")


@pytest.fixture
def fleet(tiny_vit_folder, tiny_data, tmp_path):
    return Fleet(tiny_vit_folder, tiny_data, tmp_path / "out")


def test_a_run_personalizes_every_client_and_counts_what_travelled(fleet):
    seen = []
    journal, sizes = fleet.run(on_round=seen.append)
    assert [record["round"] for record in seen] == [1, 2, 3, 4]
    assert [record["clients_replied"] for record in seen] == [3, 3, 3, 6]
    assert sum(record["uplink_bytes"] for record in seen) == sum(size.up for size in sizes.values())
    assert sum(record["downlink_bytes"] for record in seen) == sum(size.down for size in sizes.values())
    assert sum(record["first_contacts"] for record in seen) == 6
    assert len(journal.nodes) == 6
    for client in range(6):
        assert (fleet.state(client).path("model") / "manifest.json").is_file()
        assert "4" in fleet.state(client).record()["rounds"]


def strip(journal):
    rounds = [{k: v for k, v in r.items() if k != "seconds"} for r in [*journal.rounds, journal.final]]
    return rounds, journal.knowledge.to_json(), {n: g.tolist() for n, g in journal.nodes.items()}


def ledgers(fleet):
    paths = [fleet.state(client).path(LEDGER) for client in range(6)]
    return [path.read_text() for path in paths if path.is_file()]


def records(fleet):
    return [fleet.state(client).record() for client in range(6)]


@pytest.mark.parametrize("dp", ["off", "central"])
@pytest.mark.parametrize("calls", [2, 4, 8, 11])
def test_a_run_that_stopped_anywhere_ends_like_one_that_did_not(fleet, tiny_vit_folder, tiny_data, tmp_path, calls, dp):
    """With noise too: the same draw for the same clients, and nobody is charged twice."""
    whole = Fleet(tiny_vit_folder, tiny_data, tmp_path / "whole")
    expected, _ = whole.run(dp=dp)
    left = [calls]

    def stops(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return fake_personalize(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        fleet.run(personalize=stops, dp=dp)
    resumed, _ = fleet.run(resume=True, dp=dp)
    assert strip(resumed) == strip(expected)
    assert records(fleet) == records(whole)
    assert (resumed.asked, resumed.spent) == (expected.asked, expected.spent)
    assert ledgers(fleet) == ledgers(whole)
    assert bool(ledgers(fleet)) == (dp == "central")


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(fleet):
    first, _ = fleet.run()
    again, sizes = fleet.run(resume=True)
    assert strip(again) == strip(first)
    assert not any(size.down for size in sizes.values())


def test_resuming_with_other_settings_or_into_another_run_is_refused(fleet):
    fleet.run()
    with pytest.raises(UserError, match="budget"):
        fleet.run(resume=True, budget=0.25)
    with pytest.raises(UserError, match="another run"):
        fleet.run()


def test_a_client_that_lost_its_cache_is_sent_everything_in_the_same_round(fleet):
    lost = []

    def lose(record):
        if record["round"] == 3:
            (node,) = [c for c in range(6) if "3" in fleet.state(c).record()["rounds"]][:1]
            fleet.state(node).path("backbone.safetensors").write_bytes(b"garbage")
            lost.append(node)

    journal, _ = fleet.run(on_round=lose)
    assert journal.final["clients_replied"] == 6
    assert journal.final["replies"] == 7
    never_asked = 6 - sum(record["first_contacts"] for record in journal.rounds)
    assert journal.final["first_contacts"] == never_asked + 1
    assert "4" in fleet.state(lost[0]).record()["rounds"]


def test_a_group_that_nobody_keeps_is_dropped_and_newcomers_get_a_smaller_model(fleet):
    journal, _ = fleet.run(fraction=0.34, **{"drop-clients": 1, "drop-share": 0.0, "final-probes": 1})
    dropped = [record["dropped_units"] for record in [*journal.rounds, journal.final]]
    assert dropped[0] == 0
    assert dropped[1] > 0
    assert journal.final["clients_replied"] == 6
    first = journal.rounds[0]["first_contact_bytes"] / journal.rounds[0]["first_contacts"]
    assert journal.final["first_contact_bytes"] / journal.final["first_contacts"] < first
    assert any(lacking.any() for lacking in journal.nodes.values())


def test_a_restored_group_is_sent_to_those_who_lack_it_and_to_nobody_else(fleet):
    journal, _ = fleet.run(fraction=0.34, **{"drop-clients": 1, "drop-share": 0.0, "restore-every": 3, "num-rounds": 3})
    dropped = [record["dropped_units"] for record in [*journal.rounds, journal.final]]
    assert dropped[2] > 0
    assert dropped[3] < dropped[2]
    assert journal.final["clients_replied"] == 6
    assert "backbone_missing" not in journal.final["failures"]


def test_clients_that_fail_are_counted_by_code_and_the_rest_goes_on(fleet):
    def fails_for_some(model, inputs, **named):
        if named["settings"].seed % 3 == 0:
            raise RuntimeError("pixels: 1, 2, 3")
        return fake_personalize(model, inputs, **named)

    journal, _ = fleet.run(personalize=fails_for_some, quorum=0.1)
    everything = [*journal.rounds, journal.final]
    assert sum(record["failures"].get("failed", 0) for record in everything) > 0
    assert all(r["clients_replied"] + sum(r["failures"].values()) == r["clients_sampled"] for r in everything)


def test_a_round_in_which_everybody_fails_ends_the_run_with_a_line(fleet):
    def fails(*_, **__):
        raise UserError("5 samples are too few")

    with pytest.raises(UserError, match="no client of 3 replied \\(3 data_unusable\\)"):
        fleet.run(personalize=fails)


def test_what_goes_up_does_not_depend_on_the_data_but_for_the_vector(fleet):
    journal, _ = fleet.run()
    sizes = {record["uplink_bytes"] / record["replies"] for record in journal.rounds}
    assert max(sizes) - min(sizes) < 3  # clocks and ids in Flower's metadata are of variable length


def test_below_the_quorum_a_round_teaches_nothing(fleet):
    def fails_for_most(model, inputs, **named):
        if named["settings"].seed % 3:
            raise RuntimeError
        return fake_personalize(model, inputs, **named)

    journal, _ = fleet.run(personalize=fails_for_most, quorum=1.0, fraction=1.0, **{"num-rounds": 1})
    assert 0 < journal.rounds[0]["clients_replied"] < 6
    assert not journal.knowledge.precision.any()


def test_atoms_are_learned_from_all_who_replied(fleet):
    journal, _ = fleet.run(fraction=1.0, **{"num-rounds": 1})
    np.testing.assert_allclose(journal.knowledge.precision, 6 * 0.5)
