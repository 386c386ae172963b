"""Every byte that a device sends is explained, and whatever is added to it fails the audit."""

from pathlib import Path

import pytest
from flwr.app import Error
from made_recordings import SERVER, Device, post

from client.recording import Kind, read_recording
from personalization.wire.codes import ClientFailure
from simulations.audit.run import AuditSettings, run_audit

pytestmark = pytest.mark.usefixtures("task_identity")


def audit(device: Device, folder: Path, sent: bytes | None = None, **options) -> dict:
    return run_audit(
        AuditSettings(source=device.record(folder / "hall.recording", sent, **options), out=folder / "out")
    )


def said(found: dict) -> str:
    assert found["verdict"] == ("failed" if found["findings"] else "clean")
    return "; ".join(finding["what"] for finding in found["findings"])


@pytest.mark.parametrize("content", [None, Error(int(ClientFailure.FAILED), "")])
def test_every_byte_on_the_connection_is_in_a_field(tmp_path, content):
    device = Device(content)
    requests = device.requests()
    found = audit(device, tmp_path, b"".join(requests))
    assert said(found) == ""
    assert found["bytes"] == sum(map(len, requests)) == sum(row["bytes"] for row in found["fields"])
    assert found["messages"] == len(requests)
    recorded = b"".join(e.data for e in read_recording(tmp_path / "hall.recording") if e.kind is Kind.UP)
    assert recorded == b"".join(requests)


def test_a_request_that_broke_off_is_counted_and_does_not_fail(tmp_path):
    device = Device()
    sent = b"".join(device.requests())[:-100]
    found = audit(device, tmp_path, sent)
    assert said(found) == ""
    assert found["bytes"] == len(sent)
    assert found["kinds"][-1]["kind"] == "request that broke off"


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"X-Image": "aGVsbG8="}, "header x-image"),
        ({"Host": "elsewhere.example.org"}, "header host"),
        ({"User-Agent": "a private name"}, "header user-agent"),
        ({"flwr-signature": "aGVsbG8="}, "flwr-signature"),
        ({"Cookie": "a=b"}, "header cookie"),
    ],
)
def test_a_header_that_says_something_else_fails(tmp_path, headers, what):
    device = Device()
    sent = [post("push-messages", device.announcement.SerializeToString(), **headers), *device.requests()[1:]]
    assert what in said(audit(device, tmp_path, b"".join(sent)))


def test_another_call_and_bytes_between_requests_fail(tmp_path):
    device = Device()
    first, *rest = device.requests()
    assert "not a call of a device" in said(audit(device, tmp_path, first + post("upload", b"hello") + b"".join(rest)))
    found = audit(device, tmp_path / "between", first + b"hello" + b"".join(rest))
    assert found["verdict"] == "failed"


def test_fields_that_are_not_flowers_fail(tmp_path):
    device = Device()
    device.announcement.MergeFromString(b"\xa2\x06\x05hello")
    assert "a field that there is not" in said(audit(device, tmp_path / "announced"))
    device = Device()
    device.objects[0].MergeFromString(b"\xa2\x06\x05hello")
    assert "a field that there is not" in said(audit(device, tmp_path / "pushed"))


def test_objects_that_no_reply_holds_fail(tmp_path):
    device = Device()
    device.objects[0].object_content += b"\x00"
    assert "under another name than its hash" in said(audit(device, tmp_path / "padded"))
    device = Device()
    extra = type(device.objects[0])(node=device.node, run_id=1, object_id="ab" * 32, object_content=b"hello")
    device.objects.append(extra)
    assert "no reply that was announced" in said(audit(device, tmp_path / "extra"))


def test_an_error_with_a_text_fails(tmp_path):
    assert "an error with a text" in said(audit(Device(Error(106, "image 17 is broken")), tmp_path))


def test_a_connection_to_anybody_else_fails(tmp_path):
    assert "unverified" in said(audit(Device(), tmp_path / "unverified", peer=f"{SERVER} unverified"))
