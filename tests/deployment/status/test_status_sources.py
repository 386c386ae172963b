import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from status_state import make_state, run_journal, write_journal

from deployment.status import fields
from deployment.status.sources import Source, State


def test_what_could_be_read_is_remembered_with_its_age(tmp_path):
    file = tmp_path / "serve.json"
    source = Source(file)
    assert source.read().record is None
    assert "not there" in source.read().problem
    file.write_text('{"phase": "idle"}')
    os.utime(file, (1000.0, 1000.0))
    whole = source.read()
    assert (whole.record, whole.problem, whole.age(1030.0)) == ({"phase": "idle"}, None, 30.0)
    file.write_text('{"phase": "id')
    broken = source.read()
    assert (broken.record, broken.age(1030.0)) == (whole.record, 30.0)
    assert "half-written" in broken.problem
    file.unlink()
    assert "not there" in source.read().problem
    file.write_text('{"phase": "running"}')
    assert (source.read().record, source.read().problem) == ({"phase": "running"}, None)


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff\xfe", b"[" * 10**5])
def test_what_is_no_object_is_a_problem(tmp_path, raw):
    (tmp_path / "serve.json").write_bytes(raw)
    reading = Source(tmp_path / "serve.json").read()
    assert reading.record is None
    assert "damaged" in reading.problem


def test_a_folder_in_the_place_of_a_file_is_a_problem(tmp_path):
    (tmp_path / "serve.json").mkdir()
    reading = Source(tmp_path / "serve.json").read()
    assert reading.record is None
    assert reading.problem.startswith("serve.json: ")


def test_the_newer_of_two_journals_counts(tmp_path):
    state = make_state(tmp_path)
    inner = state / "run" / "server" / "journal.json"
    inner.parent.mkdir()
    inner.write_text(json.dumps({"rounds": []}))
    os.utime(inner, (1000.0, 1000.0))
    folder = State(state)
    assert folder.read()[1].record == run_journal()
    os.utime(state / "run" / "journal.json", (500.0, 500.0))
    assert folder.read()[1].record == {"rounds": []}
    write_journal(state, run_journal())
    assert folder.read()[1].record == run_journal()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(ANYTHING)
def test_fields_are_what_was_expected_or_none(value):
    assert fields.number(value) is None or 0 <= fields.number(value) <= 1e18
    assert fields.count(value) is None or (isinstance(value, int) and fields.count(value) == value)
    for read in (fields.text, fields.name):
        assert read(value) is None or (isinstance(read(value), str) and len(read(value)) <= 200)
    assert fields.moment(value) is None or fields.moment(value).utcoffset().total_seconds() == 0
    assert all(isinstance(found, int) for found in fields.counts(value).values())
    assert all(isinstance(found, dict) for found in fields.objects(value))


@given(st.integers(0, 2**64 - 1), st.text(max_size=50), st.booleans())
def test_no_text_holds_an_identifier(node, around, hexadecimal):
    written = f"{node:020x}" if hexadecimal else f"{node:020d}"
    assert written not in (fields.text(f"{around} {written} {around}") or "")
    assert fields.name(f"n{written}") is None


def test_moments_are_utc():
    assert fields.iso(fields.moment("2026-01-02T03:04:05+02:00")) == "2026-01-02T01:04:05+00:00"
    assert fields.iso(fields.moment("2026-01-02T03:04:05")) == "2026-01-02T03:04:05+00:00"
    assert fields.moment("yesterday") is None
    assert fields.moment("0001-01-01T00:00:00+14:00") is None
