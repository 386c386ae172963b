"""The real server over a fleet under conditions."""

import numpy as np
import pytest
from conftest import fake_personalize
from flwr.app import Context, RecordDict

from client.app import make_app as make_client_app
from client.data import InputFacts
from personalization.model_files.backbone import load_backbone
from server.app import make_app as make_server_app
from server.journal import load_journal
from simulations.conditions.grid import ConditionedGrid
from simulations.conditions.roles import assign_roles
from simulations.conditions.settings import Attackers, Conditions, LateJoiners
from simulations.engine import InProcessGrid, node_id
from simulations.private_data import make_fleet_data

CLIENTS = 10


@pytest.fixture
def run(tiny_vit_folder, tiny_data, tmp_path, task_identity):
    def run(conditions, name="out", rounds=3):
        config = {
            "model": str(tiny_vit_folder),
            "data": str(tiny_data),
            "partition": "classes",
            "classes-per-client": 2,
            "samples": 10,
            "num-rounds": rounds,
            "fraction": 1.0,
            "quorum": 0.1,
            "probes": 2,
            "out-dir": str(tmp_path / name),
            "seed": 3,
            "resume": False,
        }
        backbone = load_backbone(config["model"])
        data = make_fleet_data(config, CLIENTS, InputFacts(backbone.preprocessing, backbone.labels))
        app = make_client_app(data, personalize=fake_personalize)
        client_of = {node_id(client): client for client in range(CLIENTS)}
        roles = assign_roles(conditions, CLIENTS, 3)
        inner = InProcessGrid(app, clients=CLIENTS, run_config=config)
        grid = ConditionedGrid(inner, conditions, roles, client_of=client_of.__getitem__, seed=3)
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=dict(config))
        make_server_app()(grid=grid, context=context)
        journal = load_journal(tmp_path / name / "server")
        return journal, grid.events, roles

    return run


def counted(events, number):
    statuses = [event["status"] for event in events if event["round"] == number]
    return {status: statuses.count(status) for status in set(statuses)}


def test_the_server_counts_what_the_grid_did(run):
    conditions = Conditions(
        dropout=0.2, stragglers=0.2, late=LateJoiners(share=0.2, after_round=2), attack=Attackers(kind="invalid")
    )
    journal, events, _ = run(conditions)
    lost = 0
    for record in [*journal.rounds, journal.final]:
        happened = counted(events, record["round"])
        assert record["clients_sampled"] == (8 if record["round"] <= 2 else 10) == sum(happened.values())
        assert record["clients_replied"] == happened["replied"]
        assert (
            sum(n for code, n in record["failures"].items() if code.startswith("reply_")) == happened["attacker"] == 2
        )
        silent = happened.get("dropped", 0) + happened.get("straggler", 0)
        assert record["failures"].get("no_reply", 0) == silent
        lost += silent
    assert lost > 0
    assert counted(events, 4) == {"replied": 8, "attacker": 2}


def test_lies_that_are_valid_reach_the_fleets_knowledge_and_the_same_seed_tells_them_again(run):
    conditions = Conditions(dropout=0.3, attack=Attackers(kind="random"))
    (first, events, _), (second, again, _) = run(conditions, "first", rounds=1), run(conditions, "second", rounds=1)
    happened = counted(events, 1)
    assert happened["dropped"] > 0
    np.testing.assert_allclose(first.knowledge.precision, 1.0 * happened["attacker"] + 0.5 * happened["replied"])
    assert first.knowledge.to_json() == second.knowledge.to_json()
    assert events == again
