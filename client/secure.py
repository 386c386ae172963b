"""A device's part in secure sums: its keys lie in its state, and every step is stored before its reply leaves."""

import numpy as np
from numpy.typing import NDArray

from client.data import Config
from client.entries import KEYRING, PARTICIPATION
from client.identity import Identity
from client.node_file import SMALLEST
from client.privacy import Charge
from client.state import ClientState
from personalization.errors import UserError
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from strategies.privacy.release import deviations
from strategies.private_protocol import make_encoding
from strategies.secure_aggregation.client import mask_input, reveal_pairs, reveal_shares
from strategies.secure_aggregation.encoding import Encoding
from strategies.secure_aggregation.entropy import Entropy
from strategies.secure_aggregation.errors import MessageError, PeersUnknownError, RefusalError
from strategies.secure_aggregation.identity import CERTIFICATE_BYTES
from strategies.secure_aggregation.keyring import Keyring
from strategies.secure_aggregation.messages import PAIR_REQUEST, Invitation
from strategies.secure_aggregation.participation import Participation
from strategies.secure_aggregation.settings import SecureAggregationSettings
from strategies.secure_protocol import SecureRequest, Step


def read_secure_settings(node_config: Config) -> SecureAggregationSettings:
    """Return in what sums a node takes part. Raises ClientError for a size of cohorts that there is not."""
    smallest = node_config.get(SMALLEST, SecureAggregationSettings.smallest_cohort)
    try:
        if type(smallest) is not int:
            raise UserError(f"{SMALLEST} {smallest!r}: expected a whole number")
        return SecureAggregationSettings(smallest_cohort=smallest)
    except UserError as error:
        raise ClientError(ClientFailure.SUM_REFUSED, str(error)) from error


def answer_step(request: SecureRequest, state: ClientState, identity: Identity) -> bytes:
    """Answer a step that comes without a plan. Raises SecureAggregationError, OSError, ClientError."""
    return advertise(request, state, identity) if request.step is Step.ADVERTISE else reveal(request, state)


def advertise(request: SecureRequest, state: ClientState, identity: Identity) -> bytes:
    """Return this device's advertisement [245 bytes] for the request's run; the first time it makes a key for it.

    Keys of earlier runs are gone then, and with them what they could open. Raises RefusalError for an earlier run.
    """
    _check_fleet(request, identity)
    old = _keyring(state, identity)
    if old is not None and old.epoch == request.epoch:
        return old.advert
    if old is not None and old.epoch > request.epoch:
        raise RefusalError("keys of an earlier run than the one that this device has seen")
    new = Keyring.new(identity.key, identity.certificate, fleet=request.fleet, epoch=request.epoch)
    if old is not None:
        new.last = old.last
    state.change({KEYRING: new.to_bytes(), PARTICIPATION: None})
    return new.advert


def check_invitation(
    request: SecureRequest, state: ClientState, identity: Identity, settings: SecureAggregationSettings
) -> None:
    """Raise, before any work is done, what `mask` would raise for want of the run's keys or of others in the sum."""
    _check_fleet(request, identity)
    _own_keyring(request, state, identity)
    cohort = Invitation.decode(request.message).cohort
    if cohort < settings.smallest_cohort:
        raise RefusalError(
            f"a secure sum of {cohort} devices, and this one takes part in sums of {settings.smallest_cohort} or more; "
            f"smaller ones say too much about each (node configuration: {SMALLEST})"
        )


def mask(
    request: SecureRequest,
    vector: NDArray[np.float64],
    plan: Plan,
    layout: StatisticsLayout,
    digest: bytes,
    state: ClientState,
    identity: Identity,
    settings: SecureAggregationSettings,
    *,
    charge: Charge,
    entropy: Entropy,
) -> bytes:
    """Return the masked vector. vector [statistics] in [0, 1]; digest: of the plan that it answers.

    Where the plan asks for noise, deviations from it are masked, with this device's share drawn from `entropy`; what
    that costs is charged together with the mask.
    """

    def encode(cohort: int) -> Encoding:
        return make_encoding(plan, layout, cohort, fraction_bits=settings.fraction_bits, entropy=entropy)

    summed = vector if plan.privacy is None else deviations(vector, plan, layout)
    _check_fleet(request, identity)
    keyring = _own_keyring(request, state, identity)
    message, participation = mask_input(
        keyring,
        request.message,
        summed,
        name=request.name(digest, len(summed)),
        settings=settings,
        authority=identity.authority,
        encode=encode,
    )
    # What it costs comes first, for who loses power between two files. The keyring says that this round is used up: it
    # is written before the participation.
    changes = {**charge.changes(), KEYRING: keyring.to_bytes(), PARTICIPATION: participation.to_bytes()}
    state.change(changes)
    return message


def reveal(request: SecureRequest, state: ClientState) -> bytes:
    """Return what a server may know once it has said who vanished; raises RefusalError for anything more."""
    try:
        keyring, taken = Keyring.from_bytes(state.read(KEYRING)), Participation.from_bytes(state.read(PARTICIPATION))
    except (FileNotFoundError, MessageError) as error:
        raise RefusalError("a request about a round that this device takes no part in") from error
    step = reveal_pairs if request.message[:1] == bytes([PAIR_REQUEST]) else reveal_shares
    message, after = step(keyring, taken, request.message)
    state.change({PARTICIPATION: after.to_bytes()})
    return message


def _keyring(state: ClientState, identity: Identity) -> Keyring | None:
    """Return the keys that this node has in its fleet, None if they are gone or another node's."""
    try:
        found = Keyring.from_bytes(state.read(KEYRING))
    except (FileNotFoundError, MessageError):
        return None
    own = found.fleet == identity.fleet and found.advert[:CERTIFICATE_BYTES] == identity.certificate
    return found if own else None


def _own_keyring(request: SecureRequest, state: ClientState, identity: Identity) -> Keyring:
    keyring = _keyring(state, identity)
    if keyring is None or keyring.epoch != request.epoch:
        raise PeersUnknownError("an invitation for a run that this device has made no key for")
    return keyring


def _check_fleet(request: SecureRequest, identity: Identity) -> None:
    if request.fleet != identity.fleet:
        raise RefusalError("a secure sum of another fleet")
