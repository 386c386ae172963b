"""Whether a request comes from the device's own fleet and is not an old one: checked before anything of it is used."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import ConfigRecord, RecordDict

from client.data import Config
from client.node_file import parse_verify_key, read_node_file
from client.state import ClientState
from personalization.errors import UserError
from personalization.wire.codes import ClientError, ClientFailure
from strategies.protocol import FLEET, PLAN, SECURE, SERIES, SIGNATURE, read_manifest
from strategies.signatures import plan_digest, signed_bytes


@dataclass(frozen=True)
class Trust:
    """Whom a device takes plans from. model: root hash [32 bytes] of the only backbone that it takes, None for any."""

    key: Ed25519PublicKey
    fleet: str
    model: bytes | None


def read_trust(node_config: Config) -> Trust | None:
    """Return whom the node configuration says to trust; None if it names no key, and then nothing is checked.

    Either `verify-key` (base64) with `fleet-id` and, if one model only is to be taken, `model-id` (hexadecimal); or
    `node-file`, the path of a node file that holds all of them. The run configuration has no say in it. Raises
    ClientError (plan untrusted) if they can't be read: a key that is damaged must not mean that none is needed.
    """
    try:
        if node_config.get("verify-key"):
            key, fleet = str(node_config["verify-key"]), str(node_config.get("fleet-id", ""))
            model = str(node_config.get("model-id", ""))
            if not fleet:
                raise ValueError("verify-key needs fleet-id beside it")
        elif node_config.get("node-file"):
            own = read_node_file(Path(str(node_config["node-file"])))
            key, fleet, model = own.verify_key, own.fleet, own.model or ""
        else:
            return None
        return Trust(parse_verify_key(key), fleet, bytes.fromhex(model) if model else None)
    except (ValueError, UserError) as error:
        raise ClientError(ClientFailure.PLAN_UNTRUSTED, f"cannot tell whom to trust: {error}") from error


def check_request(content: RecordDict, trust: Trust, state: ClientState) -> None:
    """Return if a request is signed for this device and as new as it should be, and remember its plan.

    The signature covers every byte of plan, manifest and pieces. A plan must be newer than all before; the last one
    may come again, whether with the backbone or because its run was resumed, if it is the same. Raises ClientError
    (plan untrusted, plan outdated), PlanError or PieceError, and OSError if the plan can't be remembered.
    """
    record = content.config_records[PLAN]
    _check_signature(content, record, trust)
    _check_model(content, record, trust)
    series, version = record.get(SERIES), record.get("version")
    if not isinstance(series, int) or not isinstance(version, int):
        raise _untrusted("a plan without series and version")
    place, digest = (series, version), plan_digest(content).hex()
    last_place, last_digest = state.last_plan()
    if place < last_place:
        raise ClientError(ClientFailure.PLAN_OUTDATED, f"plan {place} is older than {last_place}, which was seen")
    if place == last_place and digest != last_digest:
        raise ClientError(ClientFailure.PLAN_OUTDATED, f"another plan {place} was seen before")
    if place > last_place:
        state.remember_plan(place, digest)


def check_step(content: RecordDict, trust: Trust) -> None:
    """Return if a step of a secure sum that comes without a plan is signed for this device's fleet.

    That it is not an old one, the core checks: by the round's name and by what was told before. Raises ClientError.
    """
    _check_signature(content, content.config_records[SECURE], trust)


def _check_signature(content: RecordDict, record: ConfigRecord, trust: Trust) -> None:
    signature = record.get(SIGNATURE)
    if not isinstance(signature, bytes):
        raise _untrusted("the plan is not signed")
    try:
        trust.key.verify(signature, signed_bytes(content))
    except InvalidSignature:
        raise _untrusted("the signature is not that of the fleet's key over this request") from None
    if record.get(FLEET) != trust.fleet:
        raise _untrusted(f"the plan is for fleet {record.get(FLEET)!r}, this device belongs to {trust.fleet!r}")


def _check_model(content: RecordDict, record: ConfigRecord, trust: Trust) -> None:
    root, manifest = record.get("root"), read_manifest(content)
    if trust.model is not None and root != trust.model:
        raise _untrusted("the plan is for another model than the one this device was enrolled for")
    if manifest is not None and manifest.root != root:
        raise _untrusted("the manifest is not that of the plan's model")


def _untrusted(detail: str) -> ClientError:
    return ClientError(ClientFailure.PLAN_UNTRUSTED, detail)
