"""Every byte of a simulated client's message is explained, and whatever is added to it fails the audit."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, MetricRecord, RecordDict
from flwr.proto.message_pb2 import Message as EncodedMessage
from hypothesis import given
from hypothesis import strategies as st
from made_recordings import LAYOUT, VECTOR, answer, ask, record_messages

from client.recording import read_recording
from personalization.wire.codes import ClientFailure
from simulations.audit.messages import read_messages
from simulations.audit.run import AuditSettings, run_audit
from strategies.protocol import reply_content

pytestmark = pytest.mark.usefixtures("task_identity")


def audit(path: Path, out: Path) -> dict:
    return run_audit(AuditSettings(source=path, out=out))


def problems(tmp_path: Path, raw: bytes, request=None) -> list[str]:
    path = record_messages(tmp_path / "one.recording", raw, request=request or ask())
    (decoded,) = read_messages(read_recording(path))
    return decoded.problems


def test_every_byte_of_a_reply_is_in_one_field_with_a_meaning(tmp_path):
    request = ask()
    raw = answer(request).SerializeToString()
    path = record_messages(tmp_path / "one.recording", raw, raw, request=request)
    found = audit(path, tmp_path / "audit")
    assert (found["verdict"], found["findings"]) == ("clean", [])
    assert found["bytes"] == found["recorded_bytes"] == sum(row["bytes"] for row in found["fields"]) == 2 * len(raw)
    assert sum(row["bytes"] for row in found["groups"]) == sum(row["bytes"] for row in found["kinds"]) == 2 * len(raw)
    assert [row["kind"] for row in found["kinds"]] == ["statistics vector"]
    sizes = {row["field"]: row["bytes"] // 2 for row in found["fields"]}
    for name, width in LAYOUT.widths.items():
        assert name == "scalars" or sizes[f"content.{name}"] == 2 * width
    lines = [json.loads(line) for line in (tmp_path / "audit" / "messages.jsonl").read_text().splitlines()]
    assert [sum(field["bytes"] for field in line["fields"]) for line in lines] == [len(raw)] * 2


def test_a_bare_code_is_explained(tmp_path):
    request = ask()
    raw = answer(request, Error(int(ClientFailure.DATA_UNUSABLE), "")).SerializeToString()
    assert problems(tmp_path, raw, request) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (RecordDict({**reply_content(VECTOR, 4), "m": MetricRecord({"loss": 1.0})}), "one record of statistics"),
        (RecordDict({**reply_content(VECTOR, 4), "c": ConfigRecord({"x": b"1"})}), "one record of statistics"),
        (
            RecordDict({"statistics": ConfigRecord({"vector": b"x" * 60, "version": 4, "more": 1})}),
            "a vector and a ver",
        ),
        (reply_content(VECTOR, 5), "the version must be the plan's"),
        (reply_content(np.append(VECTOR, 0.0), 4), "bytes, expected"),
        (Error(106, "image 17 is broken"), "an error with a text"),
        (Error(4711, ""), "is no code"),
    ],
)
def test_a_reply_with_something_else_in_it_fails(tmp_path, content, said):
    request = ask()
    found = problems(tmp_path, answer(request, content).SerializeToString(), request)
    assert any(said in problem for problem in found), found


def change(reply: EncodedMessage, name: str, value: object) -> bytes:
    setattr(reply.metadata, name, value)
    return reply.SerializeToString()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run_id", 4242),
        ("message_id", "a private name"),
        ("src_node_id", 4242),
        ("dst_node_id", 4242),
        ("reply_to_message_id", "ef" * 32),
        ("group_id", "a private name"),
        ("ttl", 1e300),
        ("message_type", "query"),
        ("created_at", 123.0),
        ("src_task_id", 4242),
    ],
)
def test_an_envelope_that_says_something_else_than_its_request_fails(tmp_path, name, value):
    request = ask()
    assert problems(tmp_path, change(answer(request), name, value), request)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"\xa2\x06\x05hello", "a field that there is not"),  # field 100
        (b"\x00\x00", "not a message"),
        (b"\x0a\x00", "more than once|not in its place"),  # metadata again
        (b"\x1a\x02\x08\x00", "error"),
        (b"\x12\x81\x00" + b"\x00", "not a message"),  # content again, its length longer than it has to be
    ],
)
def test_what_is_added_behind_a_message_fails(tmp_path, tail, said):
    request = ask()
    found = problems(tmp_path, answer(request).SerializeToString() + tail, request)
    assert any(word in problem for problem in found for word in said.split("|")), found


def test_a_field_that_flower_does_not_know_fails_wherever_it_hides(tmp_path):
    request = ask()
    for place in ("metadata", "content"):
        reply = answer(request)
        getattr(reply, place).MergeFromString(b"\xa2\x06\x05hello")
        found = problems(tmp_path / place, reply.SerializeToString(), request)
        assert any("a field that there is not" in problem for problem in found)


@given(st.data())
def test_no_changed_byte_passes_that_could_say_something(tmp_path_factory, data):
    """One byte changed: the audit fails, unless it lies in a number of the vector, a hash, or a time."""
    folder = tmp_path_factory.mktemp("changed")
    request = ask()
    raw = bytearray(answer(request).SerializeToString())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path = record_messages(folder / "one.recording", bytes(raw), request=request)
    (decoded,) = read_messages(read_recording(path))
    free = ("content.", "metadata.message_id", "metadata.ttl", "metadata.created_at")
    names = [leaf.name for leaf in decoded.leaves if leaf.start <= place < leaf.start + leaf.size]
    assert decoded.problems or (len(names) == 1 and names[0].startswith(free))


def test_a_reply_that_nobody_asked_for_fails(tmp_path):
    request, other = ask(), ask()
    other.metadata.__dict__["_message_id"] = "ef" * 32
    assert "does not hold" in problems(tmp_path, answer(other).SerializeToString(), request)[0]
