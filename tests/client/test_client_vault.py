"""The client app and its state, with a key: the same replies as without, and what damage costs."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fake_personalize, make_tiny_vit
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto

from client.app import make_app
from client.data import InputFacts
from client.entries import BACKBONE, RECORD
from client.model import load_model
from client.state import ClientState
from client.vault.keys import create_key_file
from personalization.data.tasks import PrivateSamples
from personalization.errors import UserError
from personalization.sensing.prior import Prior
from personalization.sensing.probes import ProbeSamples
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone

pytestmark = pytest.mark.usefixtures("task_identity")
ROOT = Path(__file__).parents[2]


def load(node_config, run_config, facts: InputFacts) -> PrivateSamples:
    pixels = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return PrivateSamples({"pixel_values": pixels}, torch.arange(9) % 3)


class Node:
    """A client app with a state, and with a key if asked to."""

    def __init__(self, folder: Path, *, key: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.config = folder / "state", {"state-dir": str(folder / "state")}
        self.backbone = GenericBackbone(make_tiny_vit(), {"labels": ["a", "b", "c"], "preprocessing": None}, 2)
        if key:
            self.use_key(folder / "key")

    def use_key(self, path: Path) -> None:
        create_key_file(path)
        self.config["vault-key-file"] = str(path)

    def context(self) -> Context:
        return Context(1, 9, self.config, RecordDict(), {})

    def state(self) -> ClientState:
        return ClientState.of(self.context())

    def ask(self, version: int, *, everything: bool = False) -> Message:
        backbone = self.backbone
        none = np.zeros(backbone.layout.groups, dtype=bool)
        prior = Prior(np.ones(backbone.layout.atoms), np.ones(backbone.layout.atoms))
        plan = Plan(version=version, prior=prior, dropped=none, probes=2, budget=0.5)
        message = Message(backbone.request(plan, None if everything else none), 9, MessageType.TRAIN)
        app = make_app(load, personalize=fake_personalize)
        return app(message_from_proto(message_to_proto(message)), self.context())

    def reply(self, version: int, *, everything: bool = False) -> bytes:
        reply = self.ask(version, everything=everything)
        assert not reply.has_error()
        return reply.content["statistics"]["vector"]

    def damage(self, name: str) -> None:
        path = self.folder / "vault" / self.state().vault._index.entries[name].file
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)

    def model_plan(self) -> int:
        return load_model(self.state()).manifest.extra["plan"]


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path / "node", key=True)


def lines(caplog) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == "fedsieve"]
    caplog.clear()
    return found


def test_with_a_key_the_replies_are_the_same_and_nothing_lies_in_the_open(tmp_path, node, caplog):
    plain = Node(tmp_path / "plain", key=False)
    for version in (1, 2, 3, 3):
        assert node.reply(version, everything=version == 1) == plain.reply(version, everything=version == 1)
    assert node.state().record() == plain.state().record()
    assert [path.name for path in node.folder.iterdir()] == ["vault"]
    kept, open_one = load_model(node.state()), load_model(plain.state())
    assert kept.manifest == open_one.manifest
    pixels = load({}, {}, None).inputs
    assert torch.equal(kept.model(**pixels).logits, open_one.model(**pixels).logits)
    assert lines(caplog) == []


def test_a_damaged_cache_is_reported_and_sent_again_and_nothing_else_is_lost(node, caplog):
    node.reply(1, everything=True)
    node.damage(BACKBONE)
    assert node.ask(2).error.code == ClientFailure.BACKBONE_MISSING
    (line,) = lines(caplog)
    assert BACKBONE in line
    assert node.model_plan() == 1
    node.reply(2, everything=True)
    assert node.state().load_samples(3, 8, data=load({}, {}, None).fingerprint()) is not None
    assert lines(caplog) == []


def test_a_damaged_model_leaves_the_one_before_it_and_the_next_plan_makes_a_new_one(node, caplog):
    node.reply(1, everything=True)
    node.reply(2)
    assert node.model_plan() == 2
    for name in [name for name in node.state().vault.names() if name.startswith("model/2/model-")]:
        node.damage(name)
    assert node.model_plan() == 1
    (line,) = lines(caplog)
    assert "plan 2 is damaged" in line
    node.reply(3)
    assert node.model_plan() == 3
    assert node.state().versions("model") == [2, 3]
    for name in node.state().vault.names():
        node.damage(name)
    with pytest.raises(UserError, match="no personal model here; the next plan"):
        load_model(node.state())


def test_damaged_samples_and_records_begin_anew(node, caplog):
    node.reply(1, everything=True)
    node.damage("samples/1.npz")
    node.damage(RECORD)
    state = node.state()
    assert state.load_samples(2, 8, data=load({}, {}, None).fingerprint()) is None
    assert state.record() == {"rounds": {}}
    assert len(lines(caplog)) == 2
    node.reply(2)
    assert set(node.state().record()["rounds"]) == {"2"}


def test_an_old_copy_of_the_whole_state_is_sent_again(node, caplog, tmp_path):
    node.reply(1, everything=True)
    shutil.copytree(node.folder, tmp_path / "then")
    node.reply(2)
    shutil.rmtree(node.folder)
    shutil.copytree(tmp_path / "then", node.folder)
    assert node.ask(3).error.code == ClientFailure.BACKBONE_MISSING
    assert ["old copy" in line for line in lines(caplog)] == [True]
    node.reply(3, everything=True)
    assert node.model_plan() == 3


@pytest.mark.parametrize("spoil", ["open to others", "lost", "another", "not configured"])
def test_without_its_key_a_node_answers_with_a_code_and_says_why_in_its_own_log(node, spoil):
    node.reply(1, everything=True)
    before = {path: path.read_bytes() for path in (node.folder / "vault").iterdir()}
    key = Path(node.config["vault-key-file"])
    said = {
        "open to others": "chmod 600",
        "lost": "missing",
        "another": "not this vault's",
        "not configured": "no key is",
    }
    if spoil == "open to others":
        key.chmod(0o644)
    elif spoil == "not configured":
        del node.config["vault-key-file"]
    else:
        key.unlink()
        if spoil == "another":
            create_key_file(key)
    reply = node.ask(2, everything=True)
    assert (reply.error.code, reply.error.reason) == (ClientFailure.STATE_UNWRITABLE, "")
    assert said[spoil] in (node.folder / "last_error.json").read_text()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("setting", ["vault-key-file", "vault-counter-file"])
def test_a_key_or_a_counter_inside_the_state_is_refused(node, setting):
    node.config[setting] = str(node.folder / "inside")
    with pytest.raises(ClientError, match=f"{setting}: inside the state-dir"):
        node.state()


def test_what_lay_in_the_open_goes_into_a_new_vault_only(tmp_path, caplog):
    node = Node(tmp_path / "node", key=False)
    node.reply(1, everything=True)
    before = load_model(node.state()).manifest
    node.use_key(tmp_path / "node" / "key")
    plain = Node(tmp_path / "plain", key=False)
    plain.reply(1, everything=True)
    assert node.reply(2) == plain.reply(2)
    assert [path.name for path in node.folder.iterdir()] == ["vault"]
    node.damage(next(name for name in node.state().vault.names() if name.startswith("model/2/model-")))
    assert load_model(node.state()).manifest == before
    (node.folder / "samples").mkdir()
    (node.folder / "samples" / "9.npz").write_bytes(b"planted")
    node.reply(3)
    assert node.state().versions("samples") == [1, 2, 3]
    assert [path.name for path in node.folder.iterdir()] == ["vault"]


def test_the_key_can_be_changed_between_plans(node, caplog):
    node.reply(1, everything=True)
    key = Path(node.config["vault-key-file"])
    before = key.read_text()
    node.state().change_key()
    assert key.read_text() != before
    node.reply(2)
    assert node.model_plan() == 2
    assert lines(caplog) == []


def test_a_plain_state_has_no_key_to_change(tmp_path):
    with pytest.raises(ClientError, match="no key is configured"):
        ClientState(tmp_path).change_key()


def test_simulated_nodes_take_no_key_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIEVE_VAULT_KEY", "00" * 32)
    simulated = Context(1, 1, {"partition-id": 0}, RecordDict(), {"out-dir": str(tmp_path)})
    assert ClientState.of(simulated).vault is None
    assert ClientState.of(Context(1, 1, {"state-dir": str(tmp_path / "s")}, RecordDict(), {})).vault is not None


@pytest.mark.parametrize("key", [False, True])
def test_only_one_process_works_on_a_state(tmp_path, key):
    node = Node(tmp_path / "node", key=key)
    node.reply(1, everything=True)
    script = (
        "import sys, time; from pathlib import Path; from client.vault.lock import StateLock\n"
        "with StateLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(node.folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert node.ask(2).error.code == ClientFailure.STATE_UNWRITABLE
        assert "another process is writing here" in (node.folder / "last_error.json").read_text()
        assert node.model_plan() == 1
        process.kill()
    node.reply(2)


def test_a_state_damaged_anywhere_without_a_key_is_said_and_replaced(tmp_path, caplog):
    state = ClientState(tmp_path)
    samples = ProbeSamples(np.eye(3)[:1], np.array([0.5]))
    state.save_samples(1, samples, data=bytes(32))
    state.save_samples(2, samples, data=bytes(32))
    path = tmp_path / "samples" / "2.npz"
    raw = path.read_bytes()
    for length in (0, 10, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        assert state.load_samples(3, 3, data=bytes(32)).measurements.tolist() == [0.5]
        assert len(lines(caplog)) == 1
    (tmp_path / RECORD).write_text("{torn")
    state.add_record(1, {"n": 1})
    assert len(lines(caplog)) == 1
    assert state.record() == {"rounds": {"1": {"n": 1}}}
