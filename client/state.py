"""What a device keeps between messages, in a directory that only its owner can read."""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context

from personalization.codes import ClientError, ClientFailure
from personalization.files import write_atomically
from personalization.sensing import ProbeSamples

RECORD, MODEL, SAMPLES = "record.json", "model", "samples"
# A run that is resumed repeats at most one plan, and needs what stood before it.
_KEPT_VERSIONS = 3


class ClientState:
    """One client's directory (mode 700, files 600); every file is replaced atomically.

    `backbone.safetensors`: cached generic layers. `samples/<version>.npz`: the compressed-sensing samples up to a
    plan. `model/`: the personal model. `record.json`: what was found for each plan.
    """

    def __init__(self, folder: Path) -> None:
        """Make the directory if need be."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        self.folder = folder

    @staticmethod
    def of(context: Context) -> "ClientState":
        """Return the state of the node that `context` describes.

        A deployed node names its `state-dir` in the node configuration. Simulated nodes get one each, by partition,
        under the run's `state-dir` or `out-dir`. Raises ClientError if neither is set.
        """
        own, run = context.node_config, context.run_config
        if own.get("state-dir"):
            return ClientState(Path(str(own["state-dir"])))
        parent = run.get("state-dir") or (run.get("out-dir") and str(Path(str(run["out-dir"])) / "clients"))
        if not parent or "partition-id" not in own:
            raise ClientError(ClientFailure.STATE_UNWRITABLE, "no state-dir in the node configuration")
        return ClientState(Path(str(parent)) / f"client-{own['partition-id']}")

    def path(self, name: str) -> Path:
        """Return the path of a file or folder of this state."""
        return self.folder / name

    def write(self, name: str, data: bytes) -> None:
        """Write a file (mode 600) whole or not at all. Raises OSError; what stood there before then stays."""
        path = self.path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, data)

    def save_samples(self, version: int, samples: ProbeSamples, *, data: bytes) -> None:
        """Keep all samples taken up to a plan on inputs of fingerprint `data`; they replace that version's earlier."""
        buffer = BytesIO()
        fingerprint = np.frombuffer(data, dtype=np.uint8)
        np.savez(buffer, design=samples.design, measurements=samples.measurements, data=fingerprint)
        self.write(f"{SAMPLES}/{version}.npz", buffer.getvalue())
        for old in self._versions()[:-_KEPT_VERSIONS]:
            self.path(f"{SAMPLES}/{old}.npz").unlink()

    def load_samples(self, before: int, atoms: int, *, data: bytes) -> ProbeSamples | None:
        """Return what was kept at the last plan before version `before`.

        None if nothing fits [probes, `atoms`], or if it was measured on inputs of another fingerprint than `data`.
        """
        earlier = [version for version in self._versions() if version < before]
        if not earlier:
            return None
        with np.load(self.path(f"{SAMPLES}/{earlier[-1]}.npz"), allow_pickle=False) as archive:
            samples = ProbeSamples(archive["design"], archive["measurements"])
            same = "data" in archive.files and archive["data"].tobytes() == data
        return samples if same and samples.design.shape == (len(samples.measurements), atoms) else None

    def record(self) -> dict[str, Any]:
        """Return what was found so far: under `rounds`, one entry for each plan version (as text)."""
        path = self.path(RECORD)
        return json.loads(path.read_text()) if path.is_file() else {"rounds": {}}

    def add_record(self, version: int, entry: dict[str, Any]) -> None:
        """Add what was found for a plan; it replaces what was found for that version or a later one before."""
        rounds = {v: e for v, e in self.record()["rounds"].items() if int(v) < version}
        self.write(RECORD, json.dumps({"rounds": {**rounds, str(version): entry}}, indent=1).encode())

    def _versions(self) -> list[int]:
        folder = self.path(SAMPLES)
        return sorted(int(f.stem) for f in folder.glob("*.npz") if f.stem.isdecimal()) if folder.is_dir() else []
