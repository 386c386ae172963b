"""What a device keeps between messages, in a directory that only its owner can read, encrypted if it has a key."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from client.entries import RECORD, SAMPLES, VAULT, VERSION
from client.vault.access import VaultAccess, find_access
from client.vault.lock import StateLock
from client.vault.vault import DamagedEntryError, Vault
from personalization.errors import UserError
from personalization.system.arrays import ArrayFileError, read_arrays
from personalization.system.files import write_atomically
from personalization.wire.codes import ClientError, ClientFailure

if TYPE_CHECKING:  # who only reads a state needs neither Flower nor torch
    from flwr.app import Context

    from personalization.sensing.probes import ProbeSamples

# A run that is resumed repeats at most one plan, and needs what stood before it.
_KEPT_VERSIONS = 3


class ClientState:
    """One client's directory (mode 700, files 600); every entry is replaced atomically.

    `backbone.safetensors`: cached generic layers. `samples/<version>.npz`: the compressed-sensing samples up to a plan.
    `model`: the personal model, with the tokenizer of the tokens that it keeps (see client.model). `windows.npz`: of
    the text (see client.windows). `record.json`: what was found for each plan. `version.json`: the newest plan seen.
    `keyring`, `participation`: what secure sums need (see client.secure). `ledger.json`: what answers have cost (see
    client.privacy). They are files of these names, or, with a key, entries of the vault in `vault/`.
    """

    def __init__(self, folder: Path, *, access: VaultAccess | None = None) -> None:
        """Make the directory if need be. access: what opens the vault; None keeps everything as plain files."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        self.folder = folder
        self._access = access
        self._lock = StateLock(folder)

    @staticmethod
    def of(context: "Context") -> "ClientState":
        """Return the state of the node that `context` describes.

        A deployed node names its `state-dir` in the node configuration, and is the only kind that has a vault.
        Simulated nodes get a directory each, by partition, under the run's `state-dir` or `out-dir`. Raises
        ClientError if neither is set.
        """
        own, run = context.node_config, context.run_config
        if own.get("state-dir"):
            folder = Path(str(own["state-dir"]))
            with _as_client_error():
                access = find_access(own, os.environ)
                _refuse_inside(folder, own)
            return ClientState(folder, access=access)
        parent = run.get("state-dir") or (run.get("out-dir") and str(Path(str(run["out-dir"])) / "clients"))
        if not parent or "partition-id" not in own:
            raise ClientError(ClientFailure.STATE_UNWRITABLE, "no state-dir in the node configuration")
        return ClientState(Path(str(parent)) / f"client-{own['partition-id']}")

    @cached_property
    def vault(self) -> Vault | None:
        """The vault, None without a key. Raises ClientError if it does not open, or if there is one but no key."""
        folder = self.path(VAULT)
        if self._access is None:
            if folder.is_dir():
                raise ClientError(
                    ClientFailure.STATE_UNWRITABLE,
                    f"{folder}: encrypted, but no key is configured; set vault-key-file in the node configuration, "
                    "or remove the folder to begin anew without a key",
                )
            return None
        with _as_client_error():
            return Vault(folder, self._access, lock=self._lock, report=report)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process from working on this state. Raises ClientError if one is at it already."""
        with _as_client_error():
            self._lock.__enter__()
        try:
            if self.vault is not None:
                from client.adoption import adopt_plain_files

                with _as_client_error():
                    adopt_plain_files(self.folder, self.vault)
            yield
        finally:
            self._lock.__exit__(None, None, None)

    def change_key(self) -> None:
        """Encrypt everything with a new key. Raises OSError, and ClientError if there is none to change."""
        with self.exclusive():
            if self.vault is None:
                raise ClientError(ClientFailure.STATE_UNWRITABLE, "no key is configured, so there is none to change")
            with _as_client_error():
                self.vault.reseal()

    def path(self, name: str) -> Path:
        """Return where a file or folder of this state is if it is kept plainly."""
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Return an entry. Raises FileNotFoundError if there is none; one that is damaged is reported and not there."""
        if self.vault is None:
            return self.path(name).read_bytes()
        try:
            with _as_client_error():
                return self.vault.read(name)
        except DamagedEntryError as error:
            report(str(error))
            raise FileNotFoundError(str(error)) from error

    def write(self, name: str, data: bytes) -> None:
        """Write an entry whole or not at all. Raises OSError, ClientError; what stood there before then stays."""
        self.change({name: data})

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Write entries and remove those given as None; in a vault all of it holds afterwards, or none.

        Raises OSError, and ClientError if another process is writing.
        """
        if self.vault is not None:
            with _as_client_error():
                self.vault.change(changes)
            return
        for name, data in changes.items():
            if data is None:
                self.path(name).unlink(missing_ok=True)
            else:
                self._write_plain(name, data)

    def write_error(self, data: bytes) -> None:
        """Keep what went wrong last, always as a plain file: it must be readable when the vault is not."""
        self._write_plain("last_error.json", data)

    def versions(self, folder: str) -> list[int]:
        """Return the plan versions of which there is something in `folder`, ascending."""
        if self.vault is not None:
            parts = [name.split("/") for name in self.vault.names()]
            found = {part[1].partition(".")[0] for part in parts if part[0] == folder and len(part) > 1}
        else:
            path = self.path(folder)
            found = {file.stem for file in path.iterdir()} if path.is_dir() else set()
        return sorted(int(version) for version in found if version.isdecimal())

    def save_samples(self, version: int, samples: "ProbeSamples", *, data: bytes) -> None:
        """Keep all samples taken up to a plan on inputs of fingerprint `data`; they replace that version's earlier."""
        buffer = BytesIO()
        fingerprint = np.frombuffer(data, dtype=np.uint8)
        np.savez(buffer, design=samples.design, measurements=samples.measurements, data=fingerprint)
        kept = sorted({*self.versions(SAMPLES), version})
        old = {_samples_name(v): None for v in kept[:-_KEPT_VERSIONS] if v != version}
        self.change({_samples_name(version): buffer.getvalue(), **old})

    def load_samples(self, before: int, atoms: int, *, data: bytes) -> "ProbeSamples | None":
        """Return what was kept at the last plan before version `before` that can be read; what cannot is reported.

        None if nothing fits [probes, `atoms`], or if it was measured on inputs of another fingerprint than `data`.
        """
        from personalization.sensing.probes import ProbeSamples

        for version in reversed([version for version in self.versions(SAMPLES) if version < before]):
            name = _samples_name(version)
            try:
                found = read_arrays(BytesIO(self.read(name)), ("design", "measurements", "data"))
                design, measurements = (found[key].astype(np.float64) for key in ("design", "measurements"))
                fits = design.shape == (*measurements.shape, atoms)
                same = "data" in found and found["data"].tobytes() == data
            except FileNotFoundError:
                continue
            except (ArrayFileError, ValueError, KeyError, TypeError):
                report(f"{self.path(name)}: damaged; its samples are measured again")
                continue
            return ProbeSamples(design, measurements) if same and fits else None
        return None

    def record(self) -> dict[str, Any]:
        """Return what was found so far: under `rounds`, one entry for each plan version (as text)."""
        try:
            found: dict[str, Any] = json.loads(self.read(RECORD))
            if not all(version.isdecimal() and isinstance(entry, dict) for version, entry in found["rounds"].items()):
                raise ValueError("no record")
        except FileNotFoundError:
            return {"rounds": {}}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            report(f"{self.path(RECORD)}: damaged; the record begins anew")
            return {"rounds": {}}
        return found

    def add_record(self, version: int, entry: dict[str, Any]) -> None:
        """Add what was found for a plan; it replaces what was found for that version or a later one before."""
        rounds = {v: e for v, e in self.record()["rounds"].items() if int(v) < version}
        self.write(RECORD, json.dumps({"rounds": {**rounds, str(version): entry}}, indent=1).encode())

    def last_plan(self) -> tuple[tuple[int, int], str]:
        """Return series, version and digest of the newest plan that was seen; (-1, -1) if none was."""
        try:
            record = json.loads(self.read(VERSION))
            return (int(record["series"]), int(record["version"])), str(record["plan"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # Who can damage this entry has the device. After a fault of its disk it goes on with what its fleet signs
            # next.
            return (-1, -1), ""

    def remember_plan(self, place: tuple[int, int], digest: str) -> None:
        """Keep the newest plan that was seen. place: its series and version. Raises OSError, ClientError."""
        series, version = place
        self.write(VERSION, json.dumps({"series": series, "version": version, "plan": digest}).encode())

    def _write_plain(self, name: str, data: bytes) -> None:
        path = self.path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, data)


def report(line: str) -> None:
    """Say in the node's own log, in one line, what was found damaged and given up."""
    logging.getLogger("fedsieve").warning("%s", line)


def _refuse_inside(folder: Path, own: Mapping[str, object]) -> None:
    for setting in ("vault-key-file", "vault-counter-file"):
        if own.get(setting) and Path(str(own[setting])).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{setting}: inside the state-dir {folder}, where it protects nothing; keep it elsewhere")


def _samples_name(version: int) -> str:
    return f"{SAMPLES}/{version}.npz"


@contextmanager
def _as_client_error() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ClientError(ClientFailure.STATE_UNWRITABLE, str(error)) from error
