import hashlib
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vaults import Place

from client.vault import vault as vault_module
from client.vault.access import find_access
from client.vault.index import COPIES
from client.vault.keys import create_key_file
from client.vault.vault import DamagedEntryError
from personalization.errors import UserError

FIRST = {"samples/1.npz": b"s" * 40, "model/1/manifest.json": b"{}", "empty": b""}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@settings(max_examples=15)
@given(
    changes=st.lists(
        st.dictionaries(st.text(min_size=1, max_size=8), st.none() | st.binary(max_size=50), max_size=3), max_size=4
    )
)
def test_a_vault_holds_what_a_dictionary_would(tmp_path_factory, changes):
    place, expected = Place(tmp_path_factory.mktemp("v")), {}
    vault = place.open()
    for change in changes:
        vault.change(change)
        expected.update(change)
        expected = {name: data for name, data in expected.items() if data is not None}
        assert place.contents() == expected == {name: vault.read(name) for name in vault.names()}
    assert vault.generation == len(changes)
    assert place.lines == []


def test_nothing_can_be_read_from_the_files_and_only_by_their_owner(place):
    place.open().change({"samples/1.npz": b"a private text"})
    raw = b"".join(path.read_bytes() for path in place.files())
    assert b"private" not in raw
    assert b"samples" not in raw
    assert {path.stat().st_mode & 0o777 for path in place.files()} == {0o600}
    assert place.vault_folder.stat().st_mode & 0o777 == 0o700
    assert place.access().counter.stat().st_mode & 0o777 == 0o600


def test_what_is_replaced_leaves_no_file(place):
    vault = place.open()
    for number in range(5):
        vault.change({"a": bytes([number]), "b": b""})
    vault.change({"b": None})
    assert len(place.files()) == len(COPIES) + 1


def test_a_flip_of_any_byte_is_noticed_and_costs_at_most_its_own_entry(place):
    place.open().change(FIRST)
    for path in place.files():
        raw = path.read_bytes()
        for position in range(0, len(raw), 11):
            path.write_bytes(raw[:position] + bytes([raw[position] ^ (1 + position % 255)]) + raw[position + 1 :])
            place.lines.clear()
            found = place.contents()
            assert len(place.lines) == 1
            assert found.items() <= FIRST.items()
            assert len(found) >= len(FIRST) - (path.name not in COPIES)
        path.write_bytes(raw)
    place.lines.clear()
    assert place.contents() == FIRST
    assert place.lines == []


@pytest.mark.parametrize("length", [0, 1, 47, 63, 64, -1, None])
def test_a_file_cut_short_or_gone_is_noticed(place, length):
    place.open().change(FIRST)
    for path in place.files():
        raw = path.read_bytes()
        if length == len(raw):
            continue
        path.unlink() if length is None else path.write_bytes(raw[:length])
        place.lines.clear()
        found = place.contents()
        assert len(place.lines) == 1
        assert found.items() <= FIRST.items()
        assert len(found) >= len(FIRST) - (path.name not in COPIES)
        path.write_bytes(raw)


def test_a_damaged_copy_of_the_index_is_written_again_by_the_next_change(place):
    place.open().change(FIRST)
    (place.vault_folder / COPIES[0]).write_bytes(b"torn")
    place.open().change({"x": b"y"})
    (place.vault_folder / COPIES[1]).write_bytes(b"torn")
    assert place.contents() == {**FIRST, "x": b"y"}


def test_a_damaged_entry_is_replaced_by_writing_it_again(place):
    place.open().change(FIRST)
    place.entry_file("empty").write_bytes(b"torn")
    vault = place.open()
    with pytest.raises(DamagedEntryError, match="empty"):
        vault.read("empty")
    vault.change({"empty": b"again"})
    assert place.contents() == {**FIRST, "empty": b"again"}


def test_without_any_index_all_begins_anew(place):
    place.open().change(FIRST)
    for name in COPIES:
        (place.vault_folder / name).write_bytes(b"torn")
    assert place.contents() == {}
    assert len(place.lines) == 1
    assert "index is lost" in place.lines[0]
    place.open().change({"x": b"y"})
    assert place.contents() == {"x": b"y"}


def test_files_that_changed_places_are_noticed(place):
    place.open().change({"a": b"1", "b": b"2"})
    first, second = place.entry_file("a"), place.entry_file("b")
    raws = first.read_bytes(), second.read_bytes()
    first.write_bytes(raws[1])
    second.write_bytes(raws[0])
    assert place.contents() == {}
    assert len(place.lines) == 2


def test_the_seal_alone_tells_an_older_file_and_another_name(place):
    vault = place.open()
    vault.change({"a": b"1", "b": b"1"})
    old = {name: place.entry_file(name).read_bytes() for name in "ab"}
    vault.change({"a": b"2"})
    path = place.entry_file("a")
    for raw in old.values():  # as if the index had the hash of the forged file
        path.write_bytes(raw)
        entry = replace(vault._index.entries["a"], size=len(raw), sha256=hashlib.sha256(raw).hexdigest())
        vault._index = replace(vault._index, entries={"a": entry})
        with pytest.raises(DamagedEntryError, match=r"changed since|another vault or generation"):
            vault.read("a")


def test_an_older_file_in_the_place_of_a_newer_is_noticed(place):
    place.open().change({"a": b"old", "b": b"kept"})
    old = place.entry_file("a").read_bytes()
    place.open().change({"a": b"new"})
    place.entry_file("a").write_bytes(old)
    assert place.contents() == {"b": b"kept"}
    assert len(place.lines) == 1


def test_an_older_copy_of_the_whole_vault_is_given_up(place):
    place.open().change(FIRST)
    place.copy("then")
    place.open().change({"x": b"y"})
    place.put_back("then")
    assert place.contents() == {}
    assert len(place.lines) == 1
    assert "old copy (generation 1, expected 2)" in place.lines[0]
    place.open().change({"z": b"new"})
    assert place.contents() == {"z": b"new"}
    place.put_back("then")
    assert place.contents() == {}


def test_a_vault_that_was_removed_goes_on_from_its_counter(place):
    place.open().change(FIRST)
    place.copy("then")
    shutil.rmtree(place.vault_folder)
    place.open().change({"x": b"y"})
    assert place.open().generation == 2
    place.put_back("then")
    assert place.contents() == {}


def test_the_counter_may_lag_but_not_lead(place):
    place.open().change(FIRST)
    counter = place.access().counter.read_bytes()
    place.open().change({"x": b"y"})
    place.access().counter.write_bytes(counter)  # as after a kill between index and counter
    assert place.contents() == {**FIRST, "x": b"y"}
    assert place.lines == []


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_bytes(b"torn")])
def test_a_counter_that_is_lost_is_said_and_costs_nothing(place, spoil):
    place.open().change(FIRST)
    spoil(place.access().counter)
    assert place.contents() == FIRST
    assert len(place.lines) == 1
    assert "an old copy could not be told" in place.lines[0]
    place.open().change({"x": b"y"})
    place.lines.clear()
    assert place.contents() == {**FIRST, "x": b"y"}
    assert place.lines == []


def test_another_key_changes_nothing_and_says_what_to_do(place):
    place.open().change(FIRST)
    before = [path.read_bytes() for path in place.files()]
    own = place.key_file
    place.key_file = place.keys / "other"
    create_key_file(place.key_file)
    with pytest.raises(UserError, match="is not this vault's key; use the right key"):
        place.open()
    place.key_file = own
    assert [path.read_bytes() for path in place.files()] == before
    assert place.contents() == FIRST


def test_the_vault_of_another_node_under_the_same_key_is_refused(place, tmp_path):
    place.open().change(FIRST)
    (tmp_path / "b").mkdir()
    other = Place(tmp_path / "b")
    other.key_file.write_text(place.key_file.read_text())
    other.open().change({"a": b"of another node"})
    shutil.rmtree(place.state)
    shutil.copytree(other.state, place.state)
    with pytest.raises(UserError, match="is another vault's"):
        place.open()


def test_a_newer_format_is_not_taken_for_damage(place):
    place.open().change(FIRST)
    for name in COPIES:
        path = place.vault_folder / name
        path.write_bytes(b"FSV9" + path.read_bytes()[4:])
    with pytest.raises(UserError, match="another version"):
        place.open()


def test_a_full_disk_leaves_what_stood_there_and_no_rest(place, monkeypatch):
    place.open().change(FIRST)
    files = place.files()
    write = vault_module.write_atomically

    def full_after_one(path, data):
        if full_after_one.left == 0:
            raise OSError(28, "No space left on device")
        full_after_one.left -= 1
        write(path, data)

    full_after_one.left = 1
    monkeypatch.setattr(vault_module, "write_atomically", full_after_one)
    with pytest.raises(OSError, match="No space"):
        place.open().change({"a": b"1", "b": b"2"})
    assert place.files() == files
    assert place.contents() == FIRST


def test_a_reader_follows_a_writer(place):
    writer = place.open()
    writer.change({"a": b"1"})
    reader = place.open()
    writer.change({"a": b"2"})
    assert reader.read("a") == b"2"
    writer.change({"a": None})
    with pytest.raises(FileNotFoundError):
        reader.read("a")


def test_without_a_counter_everything_but_an_old_copy_is_noticed(place):
    access = find_access({}, {"FEDSIEVE_VAULT_KEY": place.key_file.read_text()})
    place.open(access).change(FIRST)
    place.copy("then")
    place.open(access).change({"x": b"y"})
    place.put_back("then")
    assert place.open(access).names() == sorted(FIRST)
    assert not (place.keys / "key.counter").exists()
    for name in COPIES:
        (place.vault_folder / name).unlink()
    place.open(access)
    assert len(place.lines) == 1
    assert "index is lost" in place.lines[0]


def test_a_counter_that_cannot_be_written_says_where_to_put_it(place):
    place.access().counter.mkdir()
    with pytest.raises(UserError, match="counter cannot be read"):
        place.open()
    elsewhere = {"vault-key-file": str(place.key_file), "vault-counter-file": str(place.keys / "no" / "counter")}
    with pytest.raises(UserError, match="set vault-counter-file"):
        place.open(find_access(elsewhere, {})).change(FIRST)
