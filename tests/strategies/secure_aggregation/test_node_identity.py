import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from secure_fleet import AUTHORITY, FLEET, make_keyring, node_key

from strategies.secure_aggregation.errors import MessageError, PeersUnknownError
from strategies.secure_aggregation.identity import ADVERT_BYTES, advertise, certify, read_advert
from strategies.secure_aggregation.keyring import Keyring

PUBLIC = AUTHORITY.public_key()
ADVERT = make_keyring(1).advert


def test_an_enrolled_node_is_recognized_and_both_ends_get_the_same_key() -> None:
    first, second = make_keyring(1), make_keyring(2)
    first.introduce(20, second.advert, PUBLIC)
    second.introduce(10, first.advert, PUBLIC)
    assert first.find(20).key == second.find(10).key
    assert first.find(20).fingerprint == second.fingerprint != first.fingerprint


@given(st.integers(0, ADVERT_BYTES * 8 - 1))
def test_no_bit_of_an_advertisement_can_be_changed(bit: int) -> None:
    changed = bytearray(ADVERT)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError):
        read_advert(bytes(changed), PUBLIC, fleet=FLEET, epoch=1)


def test_a_server_cannot_make_up_a_node_nor_sign_for_one() -> None:
    server, own = Ed25519PrivateKey.from_private_bytes(b"s" * 32), node_key(77)
    made_up = advertise(own, certify(server, FLEET, own.public_key()), fleet=FLEET, epoch=1, public=b"k" * 32)
    certificate = certify(AUTHORITY, FLEET, node_key(1).public_key())
    in_the_middle = advertise(own, certificate, fleet=FLEET, epoch=1, public=b"k" * 32)
    for advert in (made_up, in_the_middle):
        with pytest.raises(MessageError, match="no enrolled node"):
            make_keyring(2).introduce(1, advert, PUBLIC)


@pytest.mark.parametrize(("fleet", "epoch"), [("another fleet", 1), (FLEET, 2)])
def test_an_advertisement_holds_for_its_fleet_and_epoch(fleet: str, epoch: int) -> None:
    with pytest.raises(MessageError):
        read_advert(ADVERT, PUBLIC, fleet=fleet, epoch=epoch)


def test_a_public_key_that_forces_the_shared_key_is_refused() -> None:
    node = node_key(3)
    certificate = certify(AUTHORITY, FLEET, node.public_key())
    advert = advertise(node, certificate, fleet=FLEET, epoch=1, public=bytes(32))
    with pytest.raises(MessageError, match="unusable"):
        make_keyring(2).introduce(3, advert, PUBLIC)


def test_a_keyring_survives_its_bytes() -> None:
    keyring = make_keyring(1)
    keyring.introduce(2, make_keyring(2).advert, PUBLIC)
    keyring.last = (3, 4)
    assert Keyring.from_bytes(keyring.to_bytes()) == keyring
    with pytest.raises(PeersUnknownError):
        keyring.find(1)


@given(st.binary(max_size=500))
def test_other_bytes_are_no_keyring(raw: bytes) -> None:
    with pytest.raises(MessageError):
        Keyring.from_bytes(b"\x01" + raw)
