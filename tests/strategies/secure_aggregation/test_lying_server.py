from dataclasses import replace

import numpy as np
import pytest
from secure_fleet import AUTHORITY, Fleet, make_keyring, round_name, seeded

from strategies.secure_aggregation.client import mask_input
from strategies.secure_aggregation.errors import MessageError, PeersUnknownError, RefusalError
from strategies.secure_aggregation.graph import ALL_PAIRS, graph_size, ring_position
from strategies.secure_aggregation.identity import advert_fingerprint
from strategies.secure_aggregation.keyring import Keyring
from strategies.secure_aggregation.messages import Invitation, PairRequest, ShareRequest
from strategies.secure_aggregation.participation import Participation
from strategies.secure_aggregation.settings import SecureAggregationSettings

CLIENTS = 10
NAME = round_name()


class Scene:
    """A fleet whose clients have all sent their vectors, and a server that may now say what it likes."""

    def __init__(self) -> None:
        self.fleet = Fleet(CLIENTS)
        self.server = self.fleet.server(NAME)
        self.invitations = self.fleet.invitations(self.server)
        self.victim, entropy = min(self.fleet.adverts), seeded(0)
        self.replies = {
            handle: device.mask(self.invitations[handle], np.full(5, 0.5), NAME, self.fleet.settings, entropy)
            for handle, device in self.fleet.devices.items()
        }
        self.size = graph_size(CLIENTS, self.fleet.settings)
        self.tag = self.participation(self.victim).session[:8]

    def participation(self, handle: int) -> Participation:
        return Participation.from_bytes(self.fleet.devices[handle].participation)

    def flags(self, *places: int) -> np.ndarray:
        flags = np.zeros(self.size.degree, dtype=bool)
        flags[list(places)] = True
        return flags

    def ask_masks(self, handle: int, *dead: int) -> bytes:
        return self.fleet.devices[handle].answer(PairRequest(self.tag, self.flags(*dead)).encode())

    def ask_shares(self, handle: int, *dead: int) -> bytes:
        return self.fleet.devices[handle].answer(ShareRequest(self.tag, ~self.flags(*dead), {}).encode())


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_told_a_mask_does_not_tell_a_share_of_the_same_peer(scene: Scene) -> None:
    scene.ask_masks(scene.victim, 0, 3)
    for dead in [(), (0,), (3,)]:
        with pytest.raises(RefusalError, match="both alive and gone"):
            scene.ask_shares(scene.victim, *dead)
    assert len(scene.ask_shares(scene.victim, 0, 3)) == 1 + 16 * (scene.size.degree - 2)


def test_who_told_shares_tells_no_masks_and_no_shares_again(scene: Scene) -> None:
    scene.ask_shares(scene.victim)
    with pytest.raises(RefusalError, match="over"):
        scene.ask_masks(scene.victim, 0)
    with pytest.raises(RefusalError, match="over"):
        scene.ask_shares(scene.victim)


def test_a_peer_that_was_never_said_to_be_gone_cannot_be_left_out_of_the_shares(scene: Scene) -> None:
    with pytest.raises(RefusalError, match="or neither"):
        scene.ask_shares(scene.victim, 0)


def test_a_client_tells_no_more_masks_than_the_threshold_allows_however_they_are_asked_for(scene: Scene) -> None:
    allowed = scene.size.degree - scene.size.threshold
    with pytest.raises(RefusalError, match="fewer peers"):
        scene.ask_masks(scene.victim, *range(allowed + 1))
    for place in range(allowed):
        scene.ask_masks(scene.victim, place)
    with pytest.raises(RefusalError, match="fewer peers"):
        scene.ask_masks(scene.victim, allowed)


def test_no_split_of_the_cohort_opens_one_vector(scene: Scene) -> None:
    """The best that a server can do: the victim gives up as many masks as it may, the other peers give up the rest.

    The latter hold the victim for gone and tell no shares of it; what the others tell is below the threshold.
    """
    allowed = scene.size.degree - scene.size.threshold
    peers = scene.participation(scene.victim).peers.tolist()
    scene.ask_masks(scene.victim, *range(allowed))
    told_shares = 0
    for place, peer in enumerate(peers):
        own_place = scene.participation(peer).peers.tolist().index(scene.victim)
        if place < allowed:
            scene.ask_shares(peer)
            told_shares += 1
        else:
            scene.ask_masks(peer, own_place)
            with pytest.raises(RefusalError):
                scene.ask_shares(peer)
    assert told_shares < scene.size.threshold


def test_a_second_vector_is_masked_for_no_round_that_was_answered(scene: Scene) -> None:
    device = scene.fleet.devices[scene.victim]
    for name in (NAME, round_name(version=0), round_name(plan=b"p" * 32)):
        with pytest.raises(RefusalError, match="already"):
            device.mask(scene.invitations[scene.victim], np.zeros(5), name, scene.fleet.settings, seeded(1))
    with pytest.raises(RefusalError, match="another fleet"):
        device.mask(
            scene.invitations[scene.victim],
            np.zeros(5),
            replace(NAME, fleet="x", version=9),
            scene.fleet.settings,
            seeded(1),
        )


def test_a_request_of_another_round_is_refused(scene: Scene) -> None:
    scene.tag = bytes(8)
    with pytest.raises(RefusalError, match="another round"):
        scene.ask_masks(scene.victim, 0)
    with pytest.raises(RefusalError, match="another round"):
        scene.ask_shares(scene.victim)


def test_a_share_sealed_for_somebody_else_does_not_open(scene: Scene) -> None:
    requests = scene.server.advance(scene.replies)
    first, second = sorted(scene.fleet.devices)[:2]
    request = ShareRequest.decode(requests[first], peers=scene.size.degree)
    other = ShareRequest.decode(requests[second], peers=scene.size.degree)
    swapped = dict(zip(request.sealed, other.sealed.values(), strict=True))
    raw = scene.fleet.devices[first].answer(replace(request, sealed=swapped).encode())
    shares = [raw[1 + 16 * place :][:16] for place in range(scene.size.degree)]
    assert [place for place, share in enumerate(shares) if share == b"\xff" * 16] == sorted(request.sealed)


def invite(keyring: Keyring, invitation: Invitation, **settings: float) -> None:
    mask_input(
        keyring,
        invitation.encode(),
        np.zeros(5),
        name=NAME,
        settings=SecureAggregationSettings(**settings),  # type: ignore[arg-type]
        authority=AUTHORITY.public_key(),
        entropy=seeded(0),
    )


def three(*numbers: int) -> Invitation:
    """An invitation of the client 0 into a cohort with others, under rising handles."""
    adverts = {place + 1: make_keyring(number).advert for place, number in enumerate(numbers)}
    return Invitation(len(numbers) + 1, 0, np.array(sorted(adverts), dtype=np.uint32), adverts)


def test_the_same_node_twice_and_the_client_itself_are_no_peers() -> None:
    invite(make_keyring(0), three(1, 2))
    with pytest.raises(PeersUnknownError):
        invite(make_keyring(0), three(1, 1))
    with pytest.raises(RefusalError, match="itself"):
        invite(make_keyring(0), three(1, 0))


def test_a_node_stays_one_node_under_whatever_handles_it_is_introduced() -> None:
    keyring, advert = make_keyring(0), make_keyring(1).advert
    for handle in range(5):
        keyring.introduce(handle, advert, AUTHORITY.public_key())
    assert list(keyring.peers) == [4]


def test_peers_far_away_on_the_ring_are_refused() -> None:
    clients = ALL_PAIRS + 42
    fleet = Fleet(clients)
    server = fleet.server(NAME)
    handle = min(fleet.adverts)
    invitation = Invitation.decode(fleet.invitations(server)[handle])
    others = sorted(fleet.adverts.keys() - {handle})
    own = ring_position(NAME.place, advert_fingerprint(fleet.adverts[handle]))
    distance = {h: (ring_position(NAME.place, advert_fingerprint(fleet.adverts[h])) - own) % 2**64 for h in others}
    behind = sorted(others, key=distance.__getitem__)[-len(invitation.peers) :]
    keyring = Keyring.from_bytes(fleet.devices[handle].keyring)
    with pytest.raises(RefusalError, match="not the nearest"):
        invite(keyring, replace(invitation, peers=np.array(sorted(behind), dtype=np.uint32)))
    invite(keyring, invitation)


def test_a_peer_that_nobody_enrolled_is_no_peer() -> None:
    invitation = three(1, 2)
    forged = bytearray(invitation.introductions[2])
    forged[120] ^= 1
    with pytest.raises(MessageError, match="no enrolled node"):
        invite(make_keyring(0), replace(invitation, introductions={**invitation.introductions, 2: bytes(forged)}))
    with pytest.raises(PeersUnknownError):
        invite(make_keyring(0), replace(invitation, introductions={}))


def test_a_cohort_smaller_than_the_client_wants_and_missing_peers_are_refused() -> None:
    with pytest.raises(RefusalError, match="a size that this client takes no part in"):
        invite(make_keyring(0), three(1, 2), smallest_cohort=4)
    with pytest.raises(RefusalError, match="number of peers"):
        invite(make_keyring(0), replace(three(1, 2), cohort=10))


def test_a_refused_invitation_spends_nothing() -> None:
    keyring = make_keyring(0)
    with pytest.raises(RefusalError):
        invite(keyring, three(1, 0))
    assert keyring.last == (-1, -1)
    invite(keyring, three(1, 2))


def test_whatever_a_server_asks_every_opened_client_keeps_masks_with_honest_peers() -> None:
    """Random requests to everybody: of a client whose self mask opens, 2 t - k masks were told by neither end."""
    scene, opened, lied_to = Scene(), 0, 0
    handles, degree, threshold = sorted(scene.fleet.adverts), scene.size.degree, scene.size.threshold
    fresh = {handle: device.participation for handle, device in scene.fleet.devices.items()}
    for seed in range(150):
        rng, told_masks = np.random.default_rng(seed), set[frozenset[int]]()
        told_shares = dict.fromkeys(handles, 0)
        for handle in handles:
            scene.fleet.devices[handle].participation = fresh[handle]
        for handle in rng.choice(handles, 60).tolist():
            peers = scene.participation(handle).peers.tolist()
            dead = rng.choice(degree, rng.integers(1, 3), replace=False).tolist()
            gone = np.flatnonzero(scene.participation(handle).dead).tolist()
            try:
                if rng.random() < 0.6:
                    scene.ask_masks(handle, *dead)
                    told_masks |= {frozenset((handle, peers[place])) for place in dead}
                else:
                    scene.ask_shares(handle, *gone)
                    for place in set(range(degree)) - set(gone):
                        told_shares[peers[place]] += 1
            except RefusalError:
                continue
        for handle in (one for one in handles if told_shares[one] >= threshold):
            kept = sum(frozenset((handle, peer)) not in told_masks for peer in handles if peer != handle)
            assert kept >= 2 * threshold - degree
            opened, lied_to = opened + 1, lied_to + (kept < degree)
    assert opened > 50
    assert lied_to > 50
