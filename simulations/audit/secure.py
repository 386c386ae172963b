"""The parts of a message for a secure sum, and what each gives away: to anybody but its peers, random bytes."""

from simulations.audit.leaves import Piece, shown
from strategies.secure_aggregation.graph import graph_size
from strategies.secure_aggregation.identity import CERTIFICATE_BYTES
from strategies.secure_aggregation.masks import KEY_BYTES
from strategies.secure_aggregation.messages import (
    COMMITMENT_BYTES,
    NONCE_BYTES,
    PAIR_REPLY,
    SEALED_BYTES,
    Invitation,
)
from strategies.secure_aggregation.settings import SecureAggregationSettings
from strategies.secure_aggregation.shamir import SHARE_BYTES
from strategies.secure_protocol import SecureRequest, Step

_EPOCH, _AGREEMENT, _SIGNATURE = 4, 32, 96


def secure_pieces(request: SecureRequest, raw: bytes, settings: SecureAggregationSettings) -> tuple[str, list[Piece]]:
    """Return what kind of message answers a step, and its parts in order. raw: a reply that fits the request."""
    if request.step is Step.WITHHOLD:
        return "nothing, as asked", []
    if request.step is Step.ADVERTISE:
        return "key for secure sums", _advertisement(raw)
    if request.step is Step.MASK:
        return "masked vector", _masked(request, raw, settings)
    if raw[0] == PAIR_REPLY:
        keys = "keys of the masks shared with devices that vanished, which masks nothing any more"
        return "keys of shared masks", _records(raw, "pair_keys", KEY_BYTES, keys)
    shares = "its shares of the self masks of devices that sent their vectors"
    return "shares of self masks", _records(raw, "self_mask_shares", SHARE_BYTES, shares)


def _advertisement(raw: bytes) -> list[Piece]:
    epoch = CERTIFICATE_BYTES + _EPOCH
    return [
        Piece("certificate", CERTIFICATE_BYTES, "the node's public key, signed by the fleet's authority"),
        Piece(
            "epoch", _EPOCH, "which run the key is for", shown(int.from_bytes(raw[CERTIFICATE_BYTES:epoch], "little"))
        ),
        Piece(
            "agreement_key", _AGREEMENT, "public key that masks are agreed with", shown(raw[epoch : epoch + _AGREEMENT])
        ),
        Piece("signature", _SIGNATURE, "of that key, by the node's"),
    ]


def _masked(request: SecureRequest, raw: bytes, settings: SecureAggregationSettings) -> list[Piece]:
    size = graph_size(Invitation.decode(request.message).cohort, settings)
    sealed = (size.degree - size.threshold + 1) * SEALED_BYTES
    rest = len(raw) - 1 - COMMITMENT_BYTES - NONCE_BYTES - sealed
    return [
        Piece("kind", 1, "what kind of message this is", shown(raw[0])),
        Piece("commitment", COMMITMENT_BYTES, "to the secret of the device's self mask", shown(raw[1:17])),
        Piece("nonce", NONCE_BYTES, "of the sealed shares", shown(raw[17:25])),
        Piece("sealed_shares", sealed, "shares of that secret, each readable by one peer alone"),
        Piece("masked_vector", rest, "the statistics vector under masks: random bytes to all who lack the sum"),
    ]


def _records(raw: bytes, name: str, size: int, meaning: str) -> list[Piece]:
    return [
        Piece("kind", 1, "what kind of message this is", shown(raw[0])),
        Piece(name, len(raw) - 1, meaning, f"{(len(raw) - 1) // size} of {size} bytes"),
    ]
