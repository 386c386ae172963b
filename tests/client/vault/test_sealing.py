import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.vault import sealing
from client.vault.sealing import SealError, UnknownFormatError, UnknownKeyError, VaultKey, seal, unseal
from personalization.errors import UserError

KEY, OTHER = VaultKey(bytes(range(32))), VaultKey(bytes(32))
VAULT = b"v" * 16


def sealed(data: bytes, name: str = "n", generation: int = 7, key: VaultKey = KEY) -> bytes:
    return seal(data, key=key, vault=VAULT, name=name, generation=generation)


@given(data=st.binary(max_size=200), name=st.text(max_size=20), generation=st.integers(0, 2**64 - 1))
@settings(max_examples=50)
def test_what_is_sealed_is_unsealed(data, name, generation):
    found, header = unseal(sealed(data, name, generation), keys=[OTHER, KEY], name=name)
    assert found == data
    assert (header.vault, header.key_id, header.generation) == (VAULT, KEY.id, generation)


def test_large_contents_go_through_in_pieces(monkeypatch):
    data = bytes(range(256)) * 5
    whole = sealed(data)
    monkeypatch.setattr(sealing, "_CHUNK_BYTES", 100)
    assert unseal(whole, keys=[KEY], name="n")[0] == data
    in_pieces = sealed(data)
    monkeypatch.undo()
    assert unseal(in_pieces, keys=[KEY], name="n")[0] == data


def test_every_flip_of_a_bit_and_every_truncation_is_noticed():
    raw = sealed(b"private")
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            with pytest.raises(SealError):
                unseal(bytes(changed), keys=[KEY, OTHER], name="n")
        with pytest.raises(SealError):
            unseal(raw[:position], keys=[KEY, OTHER], name="n")
    with pytest.raises(SealError):
        unseal(raw + b"x", keys=[KEY], name="n")


def test_a_seal_is_bound_to_its_name_and_its_key():
    raw = sealed(b"private")
    with pytest.raises(SealError):
        unseal(raw, keys=[KEY], name="m")
    with pytest.raises(UnknownKeyError):
        unseal(raw, keys=[OTHER], name="n")
    with pytest.raises(UnknownFormatError):
        unseal(b"FSV2" + raw[4:], keys=[KEY], name="n")


def test_no_nonce_and_no_contents_show_twice():
    raws = {sealed(b"the same private text") for _ in range(100)}
    assert len({raw[36:48] for raw in raws}) == 100
    assert not any(b"private" in raw for raw in raws)


def test_a_key_shows_neither_itself_nor_a_text_that_is_none():
    key = VaultKey.generate()
    assert VaultKey.from_text(f" {key.to_text()}\n", "file") == key != VaultKey.generate()
    assert key.to_text() not in repr(key)
    assert key.secret not in (key.cipher_key, key.id)
    for text in ("", "zz", "secret" * 9, "ab" * 31, "ab" * 33):
        with pytest.raises(UserError, match="file: not a vault key") as raised:
            VaultKey.from_text(text, "file")
        assert not text or text not in str(raised.value)
    with pytest.raises(UserError, match="32 bytes"):
        VaultKey(b"short")
