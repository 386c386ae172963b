"""The SuperLink's Control API over loopback: who may connect, and runs.

Flower's command line asks the same API, but each call of it costs a second of processor time, and a server asks often.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

Request = TypeVar("Request")
Response = TypeVar("Response")
UNREGISTERED, ONLINE = "unregistered", "online"
_FINISHED = "finished"


class ControlError(Exception):
    """The SuperLink does not answer, or refuses; the text says why."""


@dataclass(frozen=True)
class RegisteredNode:
    """A device as the SuperLink knows it. node: Flower's id. key: public key as Flower keeps it. status: Flower's."""

    node: int
    key: bytes
    status: str


@dataclass(frozen=True)
class RunStatus:
    """What `flwr list` says of a run. status: pending, starting, running or finished. result: once it is finished,
    completed, failed or stopped. details: Flower's reason."""

    status: str
    result: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether the run has ended, however it did."""
        return self.status == _FINISHED


class Control:
    """A connection to the SuperLink. Every method raises ControlError."""

    def __init__(self, port: int, authority: Path) -> None:
        """Prepare to connect to a loopback port, whose certificate must be of `authority` (PEM file)."""
        self._client = ControlHttpClient.from_server_address(
            server_address=f"localhost:{port}",
            insecure=False,
            root_certificates=authority.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="fedsieve serve")],
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def nodes(self) -> list[RegisteredNode]:
        """Return all devices that were ever registered."""
        found = self._ask(self._client.ListNodes, ListNodesRequest())
        return [RegisteredNode(node.node_id, node.public_key, node.status) for node in found.nodes_info]

    def register(self, key: bytes, name: str) -> None:
        """Let the device with this key connect."""
        answer = self._ask(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name))
        if not answer.node_id:
            raise ControlError("the SuperLink did not register it")

    def unregister(self, node: int) -> None:
        """Refuse a device from now on."""
        self._ask(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node))

    def start_run(self, bundle: bytes) -> int:
        """Submit a run of an app bundle and return its id."""
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        answer = self._ask(self._client.StartRun, StartRunRequest(fab=fab))
        if not answer.HasField("run_id"):
            raise ControlError("the SuperLink did not start the run")
        return int(answer.run_id)

    def run_status(self, run: int) -> RunStatus | None:
        """Return how a run does, None if the SuperLink does not know it."""
        try:
            found = self._ask(self._client.ListRuns, ListRunsRequest(run_id=run)).run_dict
        except ControlError as error:
            if isinstance(error.__cause__, httpx.HTTPStatusError) and error.__cause__.response.status_code == 404:
                return None
            raise
        if run not in found:
            return None
        status = found[run].status
        return RunStatus(status.status, status.sub_status, status.details)

    def unfinished_runs(self) -> list[int]:
        """Return the ids of runs that have not ended."""
        found = self._ask(self._client.ListRuns, ListRunsRequest()).run_dict
        return [run for run, about in found.items() if about.status.status != _FINISHED]

    def stop_run(self, run: int) -> None:
        """Ask for a run to be ended."""
        self._ask(self._client.StopRun, StopRunRequest(run_id=run))

    def _ask(self, call: Callable[[Request], Response], request: Request) -> Response:
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            raise ControlError(f"{error.response.status_code} {error.response.text[:300]}") from error
        except (httpx.HTTPError, ValueError, OSError) as error:
            raise ControlError(f"{type(error).__name__}: {error}") from error


def key_bytes(public_key: str) -> bytes:
    """Return a public key in OpenSSH form as Flower keeps it. Raises ValueError."""
    key = load_ssh_public_key(public_key.encode())
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("not an elliptic curve key")
    return bytes(public_key_to_bytes(key))
