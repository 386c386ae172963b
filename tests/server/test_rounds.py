import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_vit
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from personalization.errors import UserError
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout, from_wire
from server.backbone import GenericBackbone
from server.journal import load_journal
from server.rounds import FleetServer
from server.settings import ServerSettings
from simulations.conditions.grid import ConditionedGrid
from simulations.conditions.roles import assign_roles
from simulations.conditions.settings import Conditions
from simulations.engine import node_id, run_in_process
from strategies.protocol import read_plan, reply_content
from strategies.registry import make_strategy

CLIENTS = 8


class Devices:
    """Clients that answer without work: even ones need the first layer, odd ones the last. Keeps every plan by client.

    silent: rounds in which nobody answers but with an error.
    """

    def __init__(self, *, silent: tuple[int, ...] = ()) -> None:
        self.plans: dict[int, list[Plan]] = {}
        self.silent = silent
        self.app = ClientApp()
        self.app.train()(self.answer)
        self.app.evaluate()(self.answer)

    def answer(self, message: Message, context: Context) -> Message:
        plan, layout, _ = read_plan(message.content)
        client = int(context.node_config["partition-id"])
        self.plans.setdefault(client, []).append(plan)
        if plan.version in self.silent:
            return Message(Error(int(ClientFailure.DATA_UNUSABLE), ""), reply_to=message)
        return Message(reply_content(self.vector(client, layout), plan.version), reply_to=message)

    def vector(self, client: int, layout: StatisticsLayout) -> np.ndarray:
        sensitivity = np.full(layout.atoms, 0.1)
        layer = 0 if client % 2 == 0 else layout.layers - 1
        sensitivity[layer * layout.levels : (layer + 1) * layout.levels] = 0.8
        vector = np.full(layout.size, 0.5)
        vector[layout.field("weighted_sensitivity")] = 0.5 * sensitivity
        return vector


def run(out: Path, devices: Devices, strategy: str, *, conditions: Conditions | None = None, **changes) -> FleetServer:
    chosen = {"model": "tiny", "out": out, "rounds": 3, "fraction": 1.0, "min_nodes": CLIENTS, "strategy": strategy}
    settings = ServerSettings(**{**chosen, **changes})
    backbone = GenericBackbone(make_tiny_vit(), {"identifier": "tiny", "labels": ["a", "b", "c"]}, settings.levels)
    server = FleetServer(settings, backbone, make_strategy(strategy), run_config={"strategy": strategy})
    app = ServerApp()

    @app.main()
    def main(grid, context):
        server.run(grid)

    def wrapped(grid):
        clients = {node_id(client): client for client in range(CLIENTS)}
        roles = assign_roles(conditions, CLIENTS, 0)
        return ConditionedGrid(grid, conditions, roles, client_of=clients.__getitem__, seed=0)

    wrap = None if conditions is None else wrapped
    run_in_process(app, devices.app, clients=CLIENTS, run_config={}, wrap_grid=wrap)
    return server


def test_an_extended_run_goes_on_with_what_it_knows_and_its_versions_rise(tmp_path):
    whole = run(tmp_path / "whole", Devices(), "median+momentum", rounds=4)
    own = tmp_path / "own" / "run"
    first = Devices()
    run(tmp_path / "own", first, "median+momentum", rounds=2, extend=True, journal_dir=own)
    assert [plan.version for plan in first.plans[0]] == [1, 2, 3]
    second = Devices()
    server = run(tmp_path / "own", second, "median+momentum", rounds=2, extend=True, journal_dir=own)
    assert [plan.version for plan in second.plans[0]] == [4, 5, 6]
    assert [record["round"] for record in server.journal.rounds] == [1, 2, 3, 4]
    assert ([final["round"] for final in server.journal.finals], server.journal.final["round"]) == ([3], 5)
    np.testing.assert_array_equal(server.journal.knowledge.weighted, whole.journal.knowledge.weighted)
    assert server.journal.strategy == whole.journal.strategy
    assert load_journal(own).goal == 4


def test_an_extended_run_that_was_cut_off_goes_on_to_its_own_end(tmp_path):
    settings = {"extend": True, "journal_dir": tmp_path, "rounds": 2}
    run(tmp_path, Devices(), "median", **settings)
    with pytest.raises(UserError, match="round 4: no client of 8 replied"):
        run(tmp_path, Devices(silent=(5,)), "median", **settings)
    devices = Devices()
    server = run(tmp_path, devices, "median", **{**settings, "rounds": 7})
    assert [plan.version for plan in devices.plans[0]] == [5, 6]
    assert (len(server.journal.rounds), server.journal.final["clients_replied"]) == (4, CLIENTS)


def test_versions_rise_past_a_final_pass_that_placed_clients(tmp_path):
    settings = {"extend": True, "journal_dir": tmp_path, "rounds": 1, "fraction": 0.5}
    run(tmp_path, Devices(), "clustered:groups=2", **settings)
    devices = Devices()
    server = run(tmp_path, devices, "clustered:groups=2", **{**settings, "fraction": 1.0})
    assert {plan.version for plans in devices.plans.values() for plan in plans} == {4, 5}
    assert server.journal.passed == 2


class TwiceGrid:
    """Goes through the messages twice, as Flower's grid of a deployed server does."""

    def __init__(self, grid) -> None:
        self._grid = grid

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        assert len([message.metadata for message in messages]) > 0
        return self._grid.send_and_receive(messages, timeout=timeout)


def test_a_grid_may_go_through_the_messages_twice(tmp_path):
    devices, settings = Devices(), ServerSettings(model="tiny", out=tmp_path, rounds=1, min_nodes=CLIENTS)
    backbone = GenericBackbone(make_tiny_vit(), {"identifier": "tiny", "labels": ["a", "b", "c"]}, settings.levels)
    server = FleetServer(settings, backbone, make_strategy("median"), run_config={})
    app = ServerApp()
    app.main()(lambda grid, context: server.run(grid) and None)
    run_in_process(app, devices.app, clients=CLIENTS, run_config={}, wrap_grid=TwiceGrid)
    assert server.journal.final["clients_replied"] == CLIENTS


def most_sensitive(plan: Plan, layout: StatisticsLayout) -> int:
    return int(plan.prior.sensitivity.reshape(layout.layers, -1).sum(1).argmax())


def test_each_group_gets_the_plan_of_its_own_clients(tmp_path):
    devices = Devices()
    server = run(tmp_path, devices, "clustered:groups=2")
    layout = server.backbone.layout
    placed = {client: server.journal.placed[node_id(client)] for client in range(CLIENTS)}
    assert len({placed[client] for client in range(0, CLIENTS, 2)}) == 1
    assert placed[0] != placed[1]
    for client, plans in devices.plans.items():
        assert plans[0].prior is None
        assert most_sensitive(plans[-1], layout) == (0 if client % 2 == 0 else layout.layers - 1)
    own = server.journal.groups[placed[0]].prior(layout).sensitivity
    np.testing.assert_allclose(own[: layout.levels], from_wire(np.full(layout.levels, 0.8)), rtol=0.01)


def test_a_client_that_no_round_has_asked_is_placed_before_its_final_plan(tmp_path):
    devices = Devices()
    server = run(tmp_path, devices, "clustered:groups=2", fraction=0.5)
    layout = server.backbone.layout
    asked_late = [client for client, plans in devices.plans.items() if plans[0].version > 3]
    assert asked_late
    for client in asked_late:
        first, final = devices.plans[client]
        assert (first.version, first.probes, final.version) == (4, server.settings.probes, 5)
        assert most_sensitive(final, layout) == (0 if client % 2 == 0 else layout.layers - 1)


def test_a_resumed_final_pass_never_goes_back_to_the_version_that_placed_clients(tmp_path):
    run(tmp_path, Devices(), "clustered:groups=2", fraction=0.5)
    path = tmp_path / "server" / "journal.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "final": None}))
    devices = Devices()
    run(tmp_path, devices, "clustered:groups=2", fraction=0.5, resume=True)
    assert [plan.version for plans in devices.plans.values() for plan in plans] == [5] * CLIENTS


@pytest.mark.parametrize("strategy", ["clustered:groups=2", "median+momentum"])
def test_a_resumed_run_goes_on_with_groups_and_state(tmp_path, strategy):
    whole = run(tmp_path / "whole", Devices(), strategy)
    path = tmp_path / "part" / "server" / "journal.json"
    run(tmp_path / "part", Devices(), strategy, rounds=1)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "final": None}))
    resumed = run(tmp_path / "part", Devices(), strategy, resume=True)
    assert resumed.journal.strategy == whole.journal.strategy != {}
    assert resumed.journal.placed == whole.journal.placed
    for group, knowledge in whole.journal.groups.items():
        np.testing.assert_array_equal(resumed.journal.groups[group].weighted, knowledge.weighted)
    np.testing.assert_array_equal(resumed.journal.knowledge.weighted, whole.journal.knowledge.weighted)


def test_a_round_with_too_few_for_the_strategy_teaches_nothing_and_says_so(tmp_path):
    server = run(tmp_path, Devices(), "krum:attackers=3", rounds=1)
    assert "krum" in server.journal.rounds[0]["not_learned"]
    assert server.journal.knowledge.prior(server.backbone.layout) is None
    assert server.journal.final["clients_replied"] == CLIENTS


def test_a_round_in_which_nobody_is_there_does_not_end_the_run(tmp_path):
    server = run(tmp_path, Devices(), "median", conditions=Conditions(dropout=0.999))
    assert [record["clients_replied"] for record in server.journal.rounds] == [0, 0, 0]
    assert all(record["failures"] == {"no_reply": CLIENTS} for record in server.journal.rounds)
    assert load_journal(tmp_path / "server").final["clients_replied"] == CLIENTS


def test_a_round_in_which_everybody_fails_ends_the_run_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="8 data_unusable"):
        run(tmp_path, Devices(silent=(1,)), "median")
