"""A client's side of a secure sum: three pure steps, each from bytes to bytes.

`mask_input` sends the masked vector along with the shares of its self mask; `reveal_pairs` is asked only where peers
vanished; `reveal_shares` ends the round. For each peer a client tells either the mask that both share or its share of
the peer's self mask, never both: one alone opens nothing.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from personalization.errors import UserError
from strategies.secure_aggregation.encoding import Encoding
from strategies.secure_aggregation.entropy import Entropy, system_entropy
from strategies.secure_aggregation.errors import RefusalError
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.graph import GraphSize, graph_size, is_plausible, ring_position
from strategies.secure_aggregation.keyring import Keyring
from strategies.secure_aggregation.masks import add_mask, commitment, round_keys, self_mask_key, subtract_mask
from strategies.secure_aggregation.messages import (
    NONCE_BYTES,
    TAG_BYTES,
    Invitation,
    MaskedInput,
    PairReply,
    PairRequest,
    ShareReply,
    ShareRequest,
)
from strategies.secure_aggregation.participation import Participation
from strategies.secure_aggregation.settings import RoundName, SecureAggregationSettings
from strategies.secure_aggregation.shamir import to_bytes, uniform
from strategies.secure_aggregation.sharing import Pair, explicit_shares, holders


def mask_input(
    keyring: Keyring,
    raw: bytes,
    vector: NDArray[np.float64],
    *,
    name: RoundName,
    settings: SecureAggregationSettings,
    authority: Ed25519PublicKey,
    entropy: Entropy = system_entropy,
    encode: Callable[[int], Encoding] | None = None,
) -> tuple[bytes, Participation]:
    """Answer an invitation with a vector [entries]. Return the message and what the next steps need.

    Both `keyring`, which is changed, and the participation have to be stored before the message leaves: whoever masks
    two vectors for one round gives away their difference. name: from the plan that the client was given. authority:
    whose certificates peers must have. encode: makes the encoding for a cohort's size; without it entries are in [0, 1]
    and become fixed-point numbers. Raises MessageError, PeersUnknownError, RefusalError, and ValueError for a
    vector that does not fit.
    """
    invitation = Invitation.decode(raw)
    if vector.shape != (name.entries,):
        raise ValueError("the vector's length is not the one that the round is about")
    size = _agreed_size(invitation, settings)
    encoding = FixedPoint(settings.fraction_bits, invitation.cohort) if encode is None else encode(invitation.cohort)
    words = encoding.to_words(vector)
    for handle, advert in invitation.introductions.items():
        keyring.introduce(handle, advert, authority)
    _check_peers(keyring, invitation, name)
    keyring.use(name)
    session = name.session(settings, cohort=invitation.cohort, degree=size.degree, threshold=size.threshold)
    pairs = [_pair(keyring, session, handle) for handle in invitation.peers.tolist()]
    secret = uniform(entropy(32))
    add_mask(words, self_mask_key(to_bytes(secret), session))
    for pair in pairs:
        (add_mask if pair.adds else subtract_mask)(words, pair.keys.mask)
    nonce = entropy(NONCE_BYTES)
    sealed = _seal(secret, pairs, invitation, size, nonce)
    message = MaskedInput(commitment(to_bytes(secret), session), nonce, sealed, encoding.pack(words))
    nobody = np.zeros(size.degree, dtype=np.bool_)
    return message.encode(), Participation(session, size.threshold, invitation.peers, nobody)


def reveal_pairs(keyring: Keyring, participation: Participation, raw: bytes) -> tuple[bytes, Participation]:
    """Tell the masks shared with peers that are said to have vanished; they count as gone for the rest of the round.

    The new participation has to be stored before the message leaves. Raises MessageError, PeersUnknownError and
    RefusalError: after the shares were told, and if too few peers would be left.
    """
    request = PairRequest.decode(raw, peers=len(participation.peers))
    _check_open(participation, request.tag)
    dead = participation.dead | request.dead
    if np.count_nonzero(~dead) < participation.threshold:
        raise RefusalError("fewer peers are said to be left than this client needs")
    gone = participation.peers[request.dead].tolist()
    keys = [_pair(keyring, participation.session, handle).keys.mask for handle in gone]
    return PairReply(keys).encode(), replace(participation, dead=dead)


def reveal_shares(keyring: Keyring, participation: Participation, raw: bytes) -> tuple[bytes, Participation]:
    """Tell the shares of the self masks of all peers that have not vanished. This ends the round for the client.

    The new participation has to be stored before the message leaves. Raises MessageError, PeersUnknownError and
    RefusalError: at a second request, and if the peers said to be alive are not all but those said to have vanished.
    """
    request = ShareRequest.decode(raw, peers=len(participation.peers))
    _check_open(participation, request.tag)
    if (request.alive == participation.dead).any():
        raise RefusalError("a peer is said to be both alive and gone, or neither")
    if np.count_nonzero(request.alive) < participation.threshold:
        raise RefusalError("fewer peers are said to be left than this client needs")
    shares = []
    for place in np.flatnonzero(request.alive).tolist():
        pair = _pair(keyring, participation.session, int(participation.peers[place]))
        if place in request.sealed:
            nonce, sealed = request.sealed[place]
            shares.append(pair.open(sealed, nonce))
        else:
            shares.append(pair.share_of_peer())
    return ShareReply(shares).encode(), replace(participation, finished=True)


def _agreed_size(invitation: Invitation, settings: SecureAggregationSettings) -> GraphSize:
    try:
        size = graph_size(invitation.cohort, settings)
    except UserError as error:
        raise RefusalError("a cohort of a size that this client takes no part in") from error
    if len(invitation.peers) != size.degree:
        raise RefusalError("a number of peers that does not belong to a cohort of this size")
    return size


def _check_peers(keyring: Keyring, invitation: Invitation, name: RoundName) -> None:
    """Raise unless all peers are known, none is the client itself, and they are plausibly its nearest.

    A keyring holds each node once, so they are different nodes.
    """
    prints = [keyring.find(handle).fingerprint for handle in invitation.peers.tolist()]
    if keyring.fingerprint in prints:
        raise RefusalError("the client is given itself as a peer")
    own = ring_position(name.place, keyring.fingerprint)
    if not is_plausible(own, [ring_position(name.place, print_) for print_ in prints], invitation.cohort):
        raise RefusalError("peers that are not the nearest on the ring")


def _seal(secret: int, pairs: list[Pair], invitation: Invitation, size: GraphSize, nonce: bytes) -> list[bytes]:
    derived, explicit = holders(invitation.handle, invitation.peers, size.threshold)
    shares = explicit_shares(secret, {place: pairs[place].share_for_peer() for place in derived}, explicit)
    return [pairs[place].seal(share, nonce) for place, share in zip(explicit, shares, strict=True)]


def _pair(keyring: Keyring, session: bytes, handle: int) -> Pair:
    peer = keyring.find(handle)
    return Pair(round_keys(peer.key, session), session, keyring.fingerprint, peer.fingerprint)


def _check_open(participation: Participation, tag: bytes) -> None:
    if tag != participation.session[:TAG_BYTES]:
        raise RefusalError("a request about another round than the one under way")
    if participation.finished:
        raise RefusalError("this round is over for this client")
