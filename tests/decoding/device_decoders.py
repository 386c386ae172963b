"""What a device reads that was carried to it, or that it kept: keys, settings, its state, models, its own data."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from conftest import make_tiny_vit
from file_decoder import of_file, of_text
from flwr.app import RecordDict
from tiny_export import TINY

from benchmarks.fuzz.wire import Decoder
from client.backbone import BackboneShelf
from client.entries import BACKBONE, RECORD, VERSION
from client.node_file import read_any_node_file
from client.privacy import LEDGER, read_ledger
from client.recording import Recorder, read_recording
from client.state import ClientState
from client.vault.index import Entry, read_entries
from client.vault.sealing import SealError, VaultKey, seal, unseal
from client.verification import read_trust
from client.windows import kept_windows, windows_entry
from deployment.command import Enrolment, enroll
from deployment.join.checks import Owner, claim_state
from deployment.join.places import Places, Remembered, remembered_vault
from deployment.join.vault_choice import VaultChoice
from deployment.join.watch import StateWatcher
from personalization.cutting.cut_model import cut_model
from personalization.device import DEVICE_MANIFEST
from personalization.device.checks import ExportCheck, TextExportCheck
from personalization.device.footprint import DeviceFootprint, TextFootprint
from personalization.device.manifest import DeviceManifest, DeviceText, read_device_manifest
from personalization.errors import UserError
from personalization.model_files.manifest import Manifest
from personalization.model_files.storage import (
    PackedPersonalModel,
    load_personal_model,
    pack_personal_model,
    unpack_personal_model,
    write_personal_model,
)
from personalization.sensing.probes import ProbeSamples
from personalization.transformer.layers import find_layers
from personalization.wire.codes import ClientError
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from strategies.privacy.ledger import Ledger

KEY = VaultKey(b"k" * 32)


@dataclass(frozen=True)
class InVault:
    """A state in which every entry is `raw`, as a vault returns it."""

    raw: bytes
    vault: bool = True

    def read(self, name: str) -> bytes:
        return self.raw


def device_decoders(folder: Path) -> dict[str, Decoder]:
    """Return them by name; `folder` gets a fleet of one node, and its state."""
    return {**_of_joining(folder / "joined"), **_of_state(folder / "state"), **_of_models(folder / "models")}


def _of_joining(folder: Path) -> dict[str, Decoder]:
    enroll(folder / "fleet", Enrolment(server="a.org", nodes=["hall"]))
    carried = folder / "fleet" / "nodes" / "hall.json"
    node = read_any_node_file(carried)
    places, state = Places.of({"HOME": str(folder)}), folder / "joined-state"
    settings = places.settings_file(node)
    Remembered(state=str(state.resolve()), vault=VaultChoice(source="none")).save(settings)
    state.mkdir(mode=0o700)
    Owner(fleet=node.fleet, name=node.name, node=node.node).save(state)
    (state / "last_error.json").write_text("{}")
    watcher = StateWatcher(state, lambda: ClientState(state))

    def watch(path: Path) -> object:
        watcher._failed = None
        return list(watcher.news())

    return {
        "vault key": of_text("ab" * 32, lambda text: VaultKey.from_text(text, "key")),
        "key that is trusted": Decoder(
            (node.verify_key.encode(),),
            lambda raw: read_trust({"verify-key": raw.decode(errors="replace"), "fleet-id": "f"}),
            (ClientError,),
        ),
        "node file": of_file(folder / "node.json", carried.read_bytes(), read_any_node_file),
        "owner of a state": of_file(
            state / "join.json", (state / "join.json").read_bytes(), lambda path: claim_state(state, node)
        ),
        "settings of a join": of_file(
            settings, settings.read_bytes(), lambda path: remembered_vault(state, places), allowed=()
        ),
        "last error": of_file(state / "last_error.json", b'{"code":"failed","message":"why"}', watch),
    }


def _of_state(folder: Path) -> dict[str, Decoder]:
    folder.mkdir(mode=0o700)
    state = ClientState(folder)
    state.add_record(1, {"samples": 2})
    state.remember_plan((1, 2), "ab")
    state.save_samples(1, ProbeSamples(np.ones((2, 4)), np.ones(2)), data=b"data")
    samples = folder / "samples" / "1.npz"
    sealed = seal(b"entry", key=KEY, vault=bytes(16), name="n", generation=3)
    table = {"record.json": Entry("0.sealed", 5, "ab" * 32, 1)}
    index = json.dumps({name: [e.file, e.size, e.sha256, e.generation] for name, e in table.items()}).encode()
    recorder = Recorder(folder / "a.recording", form="messages")
    recorder.down(b"asked", channel=1)
    recorder.close()
    recording = (folder / "a.recording").read_bytes()

    def load_samples(path: Path) -> object:
        return state.load_samples(2, 4, data=b"data")

    return {
        "sealed file": Decoder((sealed,), lambda raw: unseal(raw, keys=[KEY], name="n"), (SealError,)),
        "index of a vault": Decoder((index,), read_entries, (SealError,)),
        "record of plans": of_file(
            folder / RECORD, state.read(RECORD), lambda path: state.add_record(3, {"samples": 2}), allowed=()
        ),
        "newest plan": of_file(folder / VERSION, state.read(VERSION), lambda path: state.last_plan(), allowed=()),
        "samples": of_file(samples, samples.read_bytes(), load_samples, allowed=(), factor=1100),
        "windows of text": Decoder(
            (windows_entry(np.ones((8, 17), dtype=np.int64), bytes(32)),),
            lambda raw: kept_windows(InVault(raw), bytes(32), 16),
            (),
            factor=1100,
        ),
        "ledger": of_file(
            folder / LEDGER, Ledger(0.5, 1, "ab").to_bytes(), lambda path: read_ledger(state), allowed=(ClientError,)
        ),
        "recording": of_file(folder / "a.recording", recording, lambda path: list(read_recording(path))),
        "recording that goes on": of_file(
            folder / "b.recording", recording, lambda path: Recorder(path, form="messages").close()
        ),
    }


def _of_models(folder: Path) -> dict[str, Decoder]:
    model = make_tiny_vit()
    layers = find_layers(model)
    kept = [np.arange(layer.units // 2) for layer in layers]
    packed = pack_personal_model(cut_model(model, layers, kept), layers=layers, kept=kept)
    write_personal_model(folder / "personal", packed)
    weights = folder / "personal" / packed.manifest.weights_file
    manifest = packed.manifest.to_json()
    return {
        "manifest of a personal model": of_text(manifest, lambda text: Manifest.from_json(text, "m")),
        # As if whoever changed the weights had written their hash into the manifest.
        "weights of a personal model": Decoder(
            (packed.weights,), lambda raw: _unpack(packed.manifest, raw), (UserError,)
        ),
        "personal model": of_file(weights, packed.weights, lambda path: load_personal_model(path.parent)),
        "device manifest": of_file(
            folder / DEVICE_MANIFEST, _device_manifest().encode(), lambda path: read_device_manifest(path.parent)
        ),
        "device manifest of a language model": of_text(
            _text_manifest(), lambda text: DeviceManifest.from_json(text, DEVICE_MANIFEST)
        ),
        **_of_backbones(folder / "cached"),
    }


def _unpack(manifest: Manifest, raw: bytes) -> object:
    digest = hashlib.sha256(raw).hexdigest()
    name = f"model-{digest[:16]}.safetensors"
    own = replace(manifest, weights_file=name, weights_sha256=digest, weights_bytes=len(raw))
    return unpack_personal_model(PackedPersonalModel(own, raw))


def _device_manifest() -> str:
    return DeviceManifest(
        precision="fp32",
        model_file=f"model-{'ab' * 8}.onnx",
        model_sha256="ab" * 32,
        personal="cd" * 32,
        preprocessing=TINY,
        labels=("a", "b", "c"),
        check=ExportCheck(samples=9, disagreements=0, disagreements_allowed=0, difference=0.0, difference_allowed=1e-4),
        footprint=DeviceFootprint(
            bytes=1000, latency_ms=0.5, peak_memory_bytes=2000, runtime_memory_bytes=1000, onnxruntime="1.20"
        ),
    ).to_json()


def _text_manifest() -> str:
    text = DeviceText(
        tokenizer_file=f"tokenizer-{'ef' * 8}.json", tokenizer_sha256="ef" * 32, separator=0, stops=(0, 2), context=64
    )
    check = TextExportCheck(
        tokens=9,
        divergence=0.0,
        divergence_allowed=0.1,
        perplexity_ratio=1.0,
        perplexity_ratio_allowed=1.1,
        agreement=1.0,
    )
    footprint = TextFootprint(
        bytes=1000,
        tokenizer_bytes=100,
        prompt_tokens_per_second=400.0,
        tokens_per_second=40.0,
        peak_memory_bytes=2000,
        runtime_memory_bytes=1000,
        onnxruntime="1.20",
    )
    return DeviceManifest(
        precision="int8-dynamic",
        model_file=f"model-{'ab' * 8}.onnx",
        model_sha256="ab" * 32,
        personal="cd" * 32,
        preprocessing=text,
        labels=(),
        check=check,
        footprint=footprint,
    ).to_json()


def _of_backbones(folder: Path) -> dict[str, Decoder]:
    generic = GenericBackbone(
        make_tiny_vit(), {"identifier": "tiny", "labels": ["a", "b", "c"], "preprocessing": None}, 2
    )
    dropped = np.zeros(generic.layout.groups, dtype=np.bool_)
    plan = Plan(version=1, prior=None, dropped=dropped, probes=2, budget=0.5)
    folder.mkdir(mode=0o700)
    state = ClientState(folder)
    BackboneShelf().get(generic.request(plan, None), state, generic.root, dropped)

    def get(state: ClientState | InVault) -> object:
        return BackboneShelf().get(RecordDict(), state, generic.root, dropped)

    raw = state.read(BACKBONE)
    return {
        "cached backbone": of_file(folder / BACKBONE, raw, lambda path: get(state), allowed=(ClientError,)),
        "cached backbone in a vault": Decoder((raw,), lambda raw: get(InVault(raw)), (ClientError,)),
    }
