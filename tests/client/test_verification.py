import hashlib
import json
import shutil

import numpy as np
import pytest
from conftest import fake_personalize, make_tiny_vit
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from test_client_app import load

from client.app import make_app
from client.entries import VERSION
from client.node_file import NodeFile
from client.vault.keys import create_key_file
from deployment.command import Enrolment, enroll
from personalization.sensing.prior import Prior
from personalization.system.files import write_atomically
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from server.signing import PlanSigner
from server.signing_key import SigningKey
from strategies.protocol import FLEET, MANIFEST, PIECES, PLAN, SERIES, SIGNATURE, pieces_record, read_pieces

pytestmark = pytest.mark.usefixtures("task_identity")

KEY, OTHER_KEY = (SigningKey("fleet-a", Ed25519PrivateKey.generate()) for _ in range(2))
BACKBONE = GenericBackbone(make_tiny_vit(), {"labels": ["a", "b", "c"], "preprocessing": None}, 2)


def make_plan(version=1, *, probes=2, dropped=()) -> Plan:
    flags = np.zeros(BACKBONE.layout.groups, dtype=bool)
    flags[list(dropped)] = True
    ones = np.ones(BACKBONE.layout.atoms)
    return Plan(version=version, prior=Prior(ones, ones), dropped=flags, probes=probes, budget=0.5)


def signed(version=1, *, whole=True, series=7, key=KEY, backbone=BACKBONE, probes=2, dropped=()) -> RecordDict:
    """A signed request, with the backbone if `whole`; with a group dropped it also brings a fold."""
    plan = make_plan(version, probes=probes, dropped=dropped)
    content = backbone.request(plan, None if whole else plan.dropped)
    PlanSigner(key, series).sign(content)
    return recorddict_from_proto(recorddict_to_proto(content))  # the backbone hands out what it keeps


class Device:
    def __init__(self, folder, **node_config):
        self.folder = folder
        self.config = {"verify-key": KEY.verify_key, "fleet-id": KEY.fleet, **node_config, "state-dir": str(folder)}

    def ask(self, content, run_config=None) -> Message:
        app = make_app(load, personalize=fake_personalize)
        message = Message(content, 9, MessageType.TRAIN)
        context = Context(1, 9, self.config, RecordDict(), run_config or {})
        return app(message_from_proto(message_to_proto(message)), context)

    def files(self):
        paths = sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != "last_error.json")
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return tmp_path_factory.mktemp("begun") / "device"


@pytest.fixture
def device(begun, tmp_path):
    """A device that has a personal model of plan 2."""
    if not begun.exists():
        assert not Device(begun).ask(signed(1)).has_error()
        assert not Device(begun).ask(signed(2, whole=False)).has_error()
    return Device(shutil.copytree(begun, tmp_path / "device"))


def assert_refused(device, content, *codes):
    before = device.files()
    reply = device.ask(content)
    assert reply.has_error()
    assert reply.error.code in codes
    assert reply.error.reason == ""
    assert device.files() == before
    assert any(name.startswith("model") for name in before)


def changed(value):
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return value + " "
    if isinstance(value, list):
        return [*value[:-1], changed(value[-1])]
    return value / 2 if isinstance(value, float) else value + 1


FIELDS = [(record, key) for record in (PLAN, MANIFEST) for key in signed()[record]]


@pytest.mark.parametrize(("record", "key"), FIELDS)
@pytest.mark.parametrize("how", ["changed", "left out"])
def test_every_field_that_was_tampered_with_is_refused(device, record, key, how):
    content = signed(3)
    if how == "changed":
        content[record][key] = changed(content[record][key])
    else:
        del content[record][key]
    assert_refused(device, content, ClientFailure.PLAN_UNTRUSTED, ClientFailure.REQUEST_INVALID)


@pytest.mark.parametrize("key", [FLEET, SERIES, SIGNATURE, "probes", "prior-sensitivity", "budget", "dropped", "root"])
def test_what_is_well_formed_but_not_signed_has_a_code_of_its_own(device, key):
    content = signed(3)
    content[PLAN][key] = changed(content[PLAN][key])
    assert_refused(device, content, ClientFailure.PLAN_UNTRUSTED)


def test_tensors_that_no_hash_of_the_manifest_covers_are_covered_by_the_signature(device):
    content = signed(3, dropped=[0])
    tensors = read_pieces(content)
    (fold,) = [name for name in tensors if name.startswith("fold.")]
    content[PIECES] = pieces_record({**tensors, fold: tensors[fold] + 1})
    assert_refused(device, content, ClientFailure.PLAN_UNTRUSTED)


@pytest.mark.parametrize("tamper", ["flip", "cut", "shape", "none", "manifest gone", "more"])
def test_what_travels_with_a_plan_cannot_be_exchanged(device, tamper):
    content = signed(3)
    raw = content[PIECES][PIECES].data
    if tamper == "none":
        del content[PIECES]
    elif tamper == "manifest gone":
        del content[MANIFEST]
    elif tamper == "more":
        content["more"] = ConfigRecord({"a": 1})
    else:
        data = {"flip": raw[:-1] + bytes([raw[-1] ^ 1]), "cut": raw[:-1], "shape": raw}[tamper]
        shape = (1, len(data)) if tamper == "shape" else (len(data),)
        content[PIECES][PIECES] = Array("uint8", shape, "safetensors", data)
    assert_refused(device, content, ClientFailure.PLAN_UNTRUSTED, ClientFailure.REQUEST_INVALID)


def test_a_plan_without_a_signature_is_refused(device):
    plan = make_plan(3)
    assert_refused(device, BACKBONE.request(plan, plan.dropped), ClientFailure.PLAN_UNTRUSTED)


def test_a_plan_of_another_key_or_another_fleet_is_refused(device):
    assert_refused(device, signed(3, key=OTHER_KEY), ClientFailure.PLAN_UNTRUSTED)
    other_fleet = SigningKey("fleet-b", KEY.private_key)
    assert_refused(device, signed(3, key=other_fleet), ClientFailure.PLAN_UNTRUSTED)


def test_a_plan_for_another_model_than_the_one_enrolled_for_is_refused(tmp_path):
    device = Device(tmp_path / "device", **{"model-id": BACKBONE.root.hex()})
    other = GenericBackbone(make_tiny_vit(seed=5), {"labels": ["a", "b", "c"], "preprocessing": None}, 2)
    assert not device.ask(signed(1)).has_error()
    assert_refused(device, signed(2, backbone=other), ClientFailure.PLAN_UNTRUSTED)
    assert not device.ask(signed(2)).has_error()


def test_a_manifest_of_another_model_is_refused_though_it_is_signed(device):
    other = GenericBackbone(make_tiny_vit(seed=5), {"labels": ["a", "b", "c"], "preprocessing": None}, 2)
    content = signed(3, backbone=other)
    content[PLAN]["root"] = BACKBONE.root
    PlanSigner(KEY, 7).sign(content)
    assert_refused(device, content, ClientFailure.PLAN_UNTRUSTED)


def test_an_older_plan_is_refused_and_the_same_again_is_answered_the_same(device):
    assert_refused(device, signed(1), ClientFailure.PLAN_OUTDATED)
    assert_refused(device, signed(9, series=6), ClientFailure.PLAN_OUTDATED)
    first, state = device.ask(signed(3, whole=False)), device.files()
    for whole in (False, True):  # with the backbone too: a node that turned out to lack it is sent all, once
        again = device.ask(signed(3, whole=whole))
        assert again.content["statistics"] == first.content["statistics"]
        assert device.files() == state


def test_another_plan_of_a_version_that_was_seen_is_refused(device):
    assert_refused(device, signed(2, probes=1), ClientFailure.PLAN_OUTDATED)
    assert_refused(device, signed(2, dropped=[0]), ClientFailure.PLAN_OUTDATED)


def test_a_new_run_begins_its_versions_again(device):
    assert not device.ask(signed(1, series=8)).has_error()
    assert_refused(device, signed(3, series=7), ClientFailure.PLAN_OUTDATED)


def test_a_plan_whose_work_failed_can_be_asked_for_again(tmp_path):
    device = Device(tmp_path / "device")
    assert device.ask(signed(1, whole=False)).error.code == ClientFailure.BACKBONE_MISSING
    assert not device.ask(signed(1)).has_error()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'{"series": "x", "version": 1, "plan": ""}'])
def test_a_device_that_forgot_its_version_goes_on_with_what_is_signed(device, raw):
    (device.folder / VERSION).write_bytes(raw)
    assert not device.ask(signed(3)).has_error()
    assert_refused(device, signed(2), ClientFailure.PLAN_OUTDATED)


def test_what_was_seen_stands_in_a_file_of_the_owner(device):
    record = json.loads((device.folder / VERSION).read_text())
    assert (record["series"], record["version"]) == (7, 2)
    assert (device.folder / VERSION).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("first", ["with a key", "without"])
def test_what_was_seen_is_remembered_in_a_vault(tmp_path, first):
    key = {"vault-key-file": str(tmp_path / "key")}
    create_key_file(tmp_path / "key")
    device = Device(tmp_path / "device", **(key if first == "with a key" else {}))
    assert not device.ask(signed(2)).has_error()
    device.config.update(key)
    assert device.ask(signed(1)).error.code == ClientFailure.PLAN_OUTDATED
    assert not (device.folder / VERSION).exists()


@pytest.mark.parametrize(
    "config", [{"verify-key": "not base64"}, {"verify-key": "AAAA"}, {"fleet-id": ""}, {"model-id": "xyz"}]
)
def test_a_key_that_cannot_be_read_does_not_mean_that_none_is_needed(device, config):
    device.config.update(config)
    assert_refused(device, signed(3), ClientFailure.PLAN_UNTRUSTED)


def test_the_run_configuration_has_no_say_in_whom_to_trust(device):
    run_config = {"verify-key": OTHER_KEY.verify_key, "fleet-id": OTHER_KEY.fleet}
    reply = device.ask(signed(3, key=OTHER_KEY), run_config)
    assert reply.error.code == ClientFailure.PLAN_UNTRUSTED


def test_without_a_key_a_device_takes_what_it_gets(tmp_path):
    device = Device(tmp_path / "device", **{"verify-key": ""})
    plan = make_plan(1)
    assert not device.ask(BACKBONE.request(plan, None)).has_error()
    assert not device.ask(signed(1)).has_error()
    assert not (device.folder / VERSION).exists()


def test_a_node_file_says_whom_to_trust(tmp_path):
    enroll(tmp_path / "fleet", Enrolment(server="a.org", nodes=["hall"]))
    path = tmp_path / "fleet" / "nodes" / "hall.json"
    record = json.loads(path.read_text())
    record.pop("format")
    own = NodeFile(**{**record, "fleet": KEY.fleet, "verify_key": KEY.verify_key, "model": BACKBONE.root.hex()})
    write_atomically(path, own.to_json())
    device = Device(tmp_path / "device", **{"verify-key": "", "node-file": str(path)})
    assert not device.ask(signed(1)).has_error()
    assert_refused(device, signed(2, key=OTHER_KEY), ClientFailure.PLAN_UNTRUSTED)
    path.chmod(0o644)
    assert_refused(device, signed(2), ClientFailure.PLAN_UNTRUSTED)
