"""A fleet whose plans are signed, end to end in process, beside the same fleet without keys."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fake_personalize
from flwr.app import Message
from flwr.clientapp import ClientApp

from client.app import make_app as make_client_app
from client.data import InputFacts
from client.node_file import read_node_file
from deployment.command import Enrolment, enroll
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from server.app import make_app as make_server_app
from server.exchange import message_bytes
from server.journal import load_journal
from simulations.engine import run_in_process
from simulations.private_data import make_fleet_data

CLIENTS = 3


class Run:
    """One run and what its clients replied, by client and version."""

    def __init__(self, out: Path, model: Path, data: Path, *, keys: Path | None, **changes: Any) -> None:
        self.replies: dict[tuple[int, int], bytes] = {}
        self.requests: list[Message] = []
        self.config = {
            "model": str(model),
            "data": str(data),
            "out-dir": str(out),
            "num-rounds": 2,
            "fraction": 1.0,
            "min-nodes": CLIENTS,
            "probes": 2,
            "samples": 24,
            "partition": "classes",
            "classes-per-client": 2,
            "seed": 0,
            "signing-key-file": "" if keys is None else str(keys / "signing-key.json"),
            **changes,
        }
        loaded = load_backbone(str(model))
        facts = InputFacts(loaded.preprocessing, loaded.labels)
        client = make_client_app(make_fleet_data(self.config, CLIENTS, facts), personalize=fake_personalize)

        def recorded(message, context):
            reply = client(message, context)
            self.requests.append(message)
            if reply.has_content():
                record = reply.content["statistics"]
                self.replies[int(context.node_config["partition-id"]), record["version"]] = record["vector"]
            return reply

        app = ClientApp()
        app.train()(recorded)
        app.evaluate()(recorded)
        own = (
            {}
            if keys is None
            else {client: {"node-file": str(keys / "nodes" / f"n{client}.json")} for client in range(3)}
        )
        run_in_process(
            make_server_app(config=self.config),
            app,
            clients=CLIENTS,
            run_config=self.config,
            node_config=lambda client, version: own.get(client, {}),
        )
        self.journal = load_journal(out / "server")


@pytest.fixture
def keys(tmp_path: Path, tiny_vit_folder: Path) -> Path:
    folder = tmp_path / "keys"
    enroll(folder, Enrolment(server="a.org", nodes=["n0", "n1", "n2"], model=str(tiny_vit_folder)))
    assert read_node_file(folder / "nodes" / "n0.json").model
    return folder


def test_signatures_change_nothing_but_the_bytes(tmp_path, tiny_vit_folder, tiny_data, keys):
    plain = Run(tmp_path / "plain", tiny_vit_folder, tiny_data, keys=None)
    signed = Run(tmp_path / "signed", tiny_vit_folder, tiny_data, keys=keys)
    assert len(plain.replies) == 3 * CLIENTS
    assert signed.replies == plain.replies
    np.testing.assert_array_equal(signed.journal.knowledge.weighted, plain.journal.knowledge.weighted)
    assert signed.journal.final["failures"] == {}
    for with_signature, without in zip(signed.requests, plain.requests, strict=True):
        assert 0 < message_bytes(with_signature) - message_bytes(without) < 250


def test_a_run_that_is_resumed_repeats_its_plan_and_the_next_run_is_newer(tmp_path, tiny_vit_folder, tiny_data, keys):
    first = Run(tmp_path / "run", tiny_vit_folder, tiny_data, keys=keys)
    path = tmp_path / "run" / "server" / "journal.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "final": None}))
    resumed = Run(tmp_path / "run", tiny_vit_folder, tiny_data, keys=keys, resume=True)
    assert resumed.replies == {key: vector for key, vector in first.replies.items() if key[1] == 3}
    assert resumed.journal.series == first.journal.series > 0
    states = {"state-dir": str(tmp_path / "run" / "clients")}
    new = Run(tmp_path / "new", tiny_vit_folder, tiny_data, keys=keys, **states)
    assert new.journal.series > first.journal.series
    assert new.journal.final["clients_replied"] == CLIENTS
    path.write_text(json.dumps({**record, "final": None}))
    with pytest.raises(UserError, match="3 plan_outdated"):
        Run(tmp_path / "run", tiny_vit_folder, tiny_data, keys=keys, resume=True)


def test_devices_take_the_plans_of_a_run_that_is_extended(tmp_path, tiny_vit_folder, tiny_data, keys):
    first = Run(tmp_path / "run", tiny_vit_folder, tiny_data, keys=keys, extend=True, **{"num-rounds": 1})
    second = Run(tmp_path / "run", tiny_vit_folder, tiny_data, keys=keys, extend=True, **{"num-rounds": 2})
    assert {version for _, version in second.replies} == {3, 4, 5}
    assert [record["failures"] for record in (*second.journal.rounds, second.journal.final)] == [{}] * 4
    assert second.journal.series > first.journal.series > 0


def test_a_server_without_the_key_gets_no_answer(tmp_path, tiny_vit_folder, tiny_data, keys):
    enroll(tmp_path / "other", Enrolment(server="a.org", nodes=["n0", "n1", "n2"]))
    mixed = tmp_path / "mixed"
    mixed.mkdir(mode=0o700)
    (mixed / "nodes").symlink_to(tmp_path / "other" / "nodes")
    (mixed / "signing-key.json").symlink_to(keys / "signing-key.json")
    with pytest.raises(UserError, match="3 plan_untrusted"):
        Run(tmp_path / "run", tiny_vit_folder, tiny_data, keys=mixed)
