import json

import pytest

from client.vault.index import COPIES, Entry, Index, entry_name, open_copies, read_copies, read_entries, write_copies
from client.vault.sealing import SealError, VaultKey, seal

KEY, VAULT = VaultKey(b"k" * 32), bytes(16)
WHOLE = ["0.sealed", 5, "ab" * 32, 1]


def wrong_tables():
    yield from (b"", b"[]", b"1", b"\xff", b"[" * 20_000, b'{"a": 1}', b'{"a": {}}')
    for place, value in enumerate(("../b", -1, 1, True)):
        yield json.dumps({"a": [*WHOLE[:place], value, *WHOLE[place + 1 :]]}).encode()
    yield json.dumps({"a": WHOLE[:-1]}).encode()


def test_a_table_of_entries_is_read():
    assert read_entries(json.dumps({"a": WHOLE}).encode()) == {"a": Entry("0.sealed", 5, "ab" * 32, 1)}


@pytest.mark.parametrize("raw", list(wrong_tables()))
def test_what_is_no_table_of_entries_is_refused(raw):
    with pytest.raises(SealError):
        read_entries(raw)


@pytest.mark.parametrize("raw", list(wrong_tables()))
def test_a_copy_with_no_table_in_it_costs_nothing(tmp_path, raw):
    index = Index(VAULT, 3, {entry_name("a"): Entry("0.sealed", 5, "ab" * 32, 1)})
    write_copies(tmp_path, index, KEY)
    # Newer than the other, and sealed with the right key.
    (tmp_path / COPIES[0]).write_bytes(seal(raw, key=KEY, vault=VAULT, name="index", generation=4))
    found = open_copies(read_copies(tmp_path), [KEY])
    assert found.index == index
    assert [problem.partition(":")[0] for problem in found.problems] == [COPIES[0]]
