"""Every place where bytes from elsewhere are decoded, in one table. To add one: an entry here."""

import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from conftest import make_tiny_vit  # noqa: F401 (torch is imported before anything is measured)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.fuzz.wire import Decoder, wire_decoders
from client.node_file import read_any_node_file
from client.vault.sealing import SealError, VaultKey, seal, unseal
from deployment.fleet import Fleet, Node, read_fleet
from deployment.serve.record import earlier_runs
from deployment.status.fields import parse_object
from personalization.device.manifest import DeviceManifest
from personalization.errors import UserError
from personalization.image_data import read_npz
from personalization.images import read_image
from personalization.manifest import Manifest
from server.enrolment_file import EnrolmentFile, read_enrolment_file
from server.journal import Journal, load_journal
from server.planning import FleetKnowledge
from server.signing_key import SigningKey, read_signing_key
from simulations.idx import read_idx
from simulations.scenario import SCENARIOS, read_scenario

KEY = VaultKey(b"k" * 32)


def all_decoders(folder: Path) -> dict[str, Decoder]:
    """Return them by name; those that read files use `folder`."""
    sealed = seal(b"entry", key=KEY, vault=bytes(16), name="n", generation=3)
    return {
        **wire_decoders(),
        "sealed file": Decoder((sealed,), lambda raw: unseal(raw, keys=[KEY], name="n"), (SealError,)),
        "manifest of a personal model": _of_text(b'{"format":1}', lambda text: Manifest.from_json(text, "m")),
        "device manifest": _of_text(b'{"format":1}', lambda text: DeviceManifest.from_json(text, "m")),
        "file of the status page": Decoder((b'{"rounds":[]}',), parse_object, (ValueError,)),
        "journal": _of_file(folder / "journal.json", _journal(folder), lambda path: load_journal(path.parent)),
        "enrolment file": _of_file(folder / "enrolment.json", _enrolment(), read_enrolment_file),
        "signing key": _of_file(folder / "signing.json", _signing(), read_signing_key),
        "node file": _of_file(folder / "node.json", b'{"format":2,"fleet":"f"}', read_any_node_file),
        "fleet record": _of_file(folder / "fleet.json", _fleet(folder), lambda path: read_fleet(path.parent)),
        "serve record": _of_file(
            folder / "serve.json", b'{"runs":[{"number":1,"run_id":"","started":""}]}', earlier_runs
        ),
        "idx": _of_file(folder / "a.idx", b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef", read_idx),
        "npz": _of_file(folder / "a.npz", _npz(), lambda path: read_npz(path, ("images",))),
        "image": _of_file(folder / "a.png", _png(), read_image),
        "scenario": _of_file(folder / "a.toml", (SCENARIOS / "benign.toml").read_bytes(), read_scenario),
    }


def _of_file(path: Path, valid: bytes, read: Callable[[Path], object]) -> Decoder:
    def call(raw: bytes) -> object:
        path.write_bytes(raw)
        os.chmod(path, 0o600)
        return read(path)

    return Decoder((valid,), call, (UserError,), spare_bytes=1_000_000)


def _of_text(valid: bytes, read: Callable[[str], object]) -> Decoder:
    return Decoder((valid,), lambda raw: read(raw.decode(errors="replace")), (UserError,))


def _journal(folder: Path) -> bytes:
    known = FleetKnowledge(np.ones(4), np.ones(4), np.ones(5), np.ones(5), np.arange(5) == 2)
    Journal({}, "00", known, [{"round": 1}], {7: np.arange(5) == 1}).save(folder)
    return (folder / "journal.json").read_bytes()


def _enrolment() -> bytes:
    return EnrolmentFile("fleet", Ed25519PrivateKey.generate().public_key()).to_json()


def _signing() -> bytes:
    return SigningKey("fleet", Ed25519PrivateKey.generate()).to_json()


def _fleet(folder: Path) -> bytes:
    node = Node(name="hall", node="ab", public_key="k", enrolled="2026-01-01")
    Fleet(folder=folder, fleet="f", server="a:1", names=("a",), model=None, nodes=(node,)).save()
    return (folder / "fleet.json").read_bytes()


def _npz() -> bytes:
    buffer = BytesIO()
    np.savez(buffer, images=np.zeros((2, 4, 4), np.uint8))
    return buffer.getvalue()


def _png() -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "png")
    return buffer.getvalue()


DEEP = b'{"format":1,"a":' + b"[" * 20_000
HUGE = json.dumps({"format": 2**70}).encode()
