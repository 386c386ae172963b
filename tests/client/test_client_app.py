import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import fake_personalize, make_tiny_vit
from flwr.app import Array, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto

from client.app import make_app
from client.data import InputFacts, load_private_data
from personalization.data.tasks import PrivateSamples
from personalization.sensing.prior import Prior
from personalization.settings import PersonalizationSettings
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from strategies.protocol import PIECES, pieces_record, read_pieces, read_reply, reply_content

pytestmark = pytest.mark.usefixtures("task_identity")


def load(node_config, run_config, facts: InputFacts) -> PrivateSamples:
    pixels = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return PrivateSamples({"pixel_values": pixels}, torch.arange(9) % 3)


class Device:
    """A client app with a directory, asked by a server's backbone."""

    def __init__(self, folder, *, personalize=fake_personalize, node_id=9, **own):
        self.folder, self.personalize, self.node_id, self.own = folder, personalize, node_id, own
        self.backbone = GenericBackbone(make_tiny_vit(), {"labels": ["a", "b", "c"], "preprocessing": None}, 2)

    def plan(self, version=1, dropped=()):
        flags = np.zeros(self.backbone.layout.groups, dtype=bool)
        flags[list(dropped)] = True
        atoms = self.backbone.layout.atoms
        return Plan(version=version, prior=Prior(np.ones(atoms), np.ones(atoms)), dropped=flags, probes=2, budget=0.5)

    def content(self, plan, lacking=None):
        return self.backbone.request(plan, lacking)

    def ask(self, content) -> Message:
        # A new app for each message, as a SuperNode starts a new process for each.
        app = make_app(load, personalize=self.personalize)
        message = Message(content, self.node_id, MessageType.TRAIN)
        context = Context(1, self.node_id, {"state-dir": str(self.folder), **self.own}, RecordDict(), {})
        return app(message_from_proto(message_to_proto(message)), context)

    def files(self):
        paths = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "device")


def test_the_same_request_gives_the_same_reply_and_the_same_state(device):
    plans = [device.plan(version) for version in (1, 2, 2)]
    replies, states = [], []
    for number, plan in enumerate(plans):
        replies.append(device.ask(device.content(plan, None if number == 0 else plan.dropped)))
        states.append(device.files())
    first, second, again = (reply.content["statistics"]["vector"] for reply in replies)
    assert second == again != first
    assert states[1] == states[2] != states[0]


def test_a_client_with_a_name_answers_the_same_under_whatever_number_flower_gives_it(tmp_path):
    def answer(folder, **own):
        device = Device(tmp_path / folder, **own)
        return device.ask(device.content(device.plan())).content["statistics"]["vector"]

    hall = {"client-name": "hall"}
    assert answer("a", node_id=9, **hall) == answer("b", node_id=12, **hall)
    assert answer("c", node_id=9, **hall, **{"partition-id": 3}) == answer("d", node_id=9, **hall)
    others = [answer("e", node_id=9), answer("f", node_id=12), answer("g", node_id=9, **{"client-name": "attic"})]
    assert len({*others, answer("h", **hall)}) == 4


def test_a_newcomer_measures_where_the_plan_asks_for_nothing_and_others_do_not(device):
    asked = []

    def note(*arguments, settings, **others):
        asked.append(settings.probes)
        return fake_personalize(*arguments, settings=settings, **others)

    device.personalize = note
    for version, probes in ((1, 0), (2, 2), (3, 0)):
        device.ask(device.content(replace(device.plan(version), probes=probes)))
    assert asked == [PersonalizationSettings.probes, 2, 0]


def test_every_byte_of_a_reply_follows_from_the_vector_and_the_request(device):
    content = device.content(device.plan())
    reply = device.ask(content)
    vector = read_reply(reply.content, device.backbone.layout, 1)
    rebuilt = Message(reply_content(vector, 1), metadata=reply.metadata)
    assert message_to_proto(reply).SerializeToString() == message_to_proto(rebuilt).SerializeToString()
    request = Message(content, 9, MessageType.TRAIN)
    for name in ("run_id", "group_id", "message_type", "src_task_id"):
        assert getattr(reply.metadata, name) == getattr(Message(RecordDict(), reply_to=request).metadata, name)


def test_without_a_cache_the_backbone_is_missing(device):
    reply = device.ask(device.content(device.plan(), device.plan().dropped))
    assert reply.error.code == ClientFailure.BACKBONE_MISSING


@pytest.mark.parametrize("spoil", ["truncate", "flip", "other"])
def test_a_cache_that_was_damaged_is_noticed(device, tmp_path, spoil):
    device.ask(device.content(device.plan()))
    path = device.folder / "backbone.safetensors"
    raw = bytearray(path.read_bytes())
    if spoil == "truncate":
        raw = raw[:-7]
    elif spoil == "flip":
        raw[-1] ^= 1
    else:
        other = Device(tmp_path / "other")
        other.backbone = GenericBackbone(make_tiny_vit(seed=5), {"labels": [], "preprocessing": None}, 2)
        other.ask(other.content(other.plan()))
        raw = (other.folder / "backbone.safetensors").read_bytes()
    path.write_bytes(raw)
    reply = device.ask(device.content(device.plan(2), device.plan().dropped))
    assert reply.error.code == ClientFailure.BACKBONE_MISSING
    assert not device.ask(device.content(device.plan(2))).has_error()


def test_a_piece_that_does_not_match_its_hash_is_refused_and_not_stored(device):
    content = device.content(device.plan())
    tensors = read_pieces(content)
    tensors["3"] = tensors["3"] + 1
    content[PIECES] = pieces_record(tensors)
    assert device.ask(content).error.code == ClientFailure.REQUEST_INVALID
    assert not (device.folder / "backbone.safetensors").exists()


@pytest.mark.parametrize("name", ["9999", "-1", "x", "0.0"])
def test_a_piece_that_the_manifest_does_not_know_is_refused(device, name):
    content = device.content(device.plan())
    content[PIECES] = pieces_record({**read_pieces(content), name: torch.ones(2)})
    assert device.ask(content).error.code == ClientFailure.REQUEST_INVALID


def test_a_transfer_that_is_cut_short_is_refused(device):
    content = device.content(device.plan())
    raw = content[PIECES][PIECES].data[:-100]
    content[PIECES][PIECES] = Array("uint8", (len(raw),), "safetensors", raw)
    assert device.ask(content).error.code == ClientFailure.REQUEST_INVALID


def test_a_layout_that_is_not_the_backbones_is_refused(device):
    content = device.content(device.plan())
    content["plan"] = ConfigRecord({**content["plan"], "levels": 1, "layers": 8})
    assert device.ask(content).error.code == ClientFailure.REQUEST_INVALID


def test_a_newcomer_lacks_what_was_dropped_and_gets_it_when_it_is_restored(device):
    seen = []

    def noting(model, inputs, **named):
        seen.append((model(**inputs).logits, [len(units) for units in named["dropped_units"]]))
        return fake_personalize(model, inputs, **named)

    device.personalize = noting
    dense = make_tiny_vit()(**load({}, {}, None).inputs).logits
    dropped = device.plan(1, dropped=[0, 5])
    assert not device.ask(device.content(dropped)).has_error()
    lacking = device.backbone.lacking_after(dropped, None)
    restored = device.plan(2)
    assert device.ask(RecordDict({"plan": device.content(restored, restored.dropped)["plan"]})).has_error()
    assert not device.ask(device.content(restored, lacking)).has_error()
    (hollow, gone), (whole, none) = seen
    assert not torch.allclose(hollow, dense)
    assert torch.equal(whole, dense)
    assert sum(gone) > 0 == sum(none)


def test_a_folder_of_images_is_read_and_nothing_else_may_be_named(tmp_path):
    with pytest.raises(ClientError) as raised:
        load_private_data({}, {"private-data": "os:system"}, InputFacts(None, ()))
    assert raised.value.code is ClientFailure.DATA_UNUSABLE
    with pytest.raises(ClientError):
        load_private_data({"data-dir": str(tmp_path)}, {}, InputFacts(None, ()))
