import json

import pytest

from client.node_file import read_any_node_file, read_node_file
from deployment.command import Enrolment, enroll
from personalization.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enrolled") / "fleet"
    enroll(folder, Enrolment(server="a.org", nodes=["hall"]))
    return json.loads((folder / "nodes" / "hall.json").read_text())


def read(tmp_path, record):
    path = tmp_path / "node.json"
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    path.chmod(0o600)
    return read_node_file(path)


def test_what_is_whole_is_read(tmp_path, whole):
    assert read(tmp_path, whole).name == "hall"
    assert read(tmp_path, {**whole, "model": "ab" * 32}).model == "ab" * 32


@pytest.mark.parametrize(
    "key",
    [
        "fleet",
        "name",
        "node",
        "server",
        "private_key",
        "authority",
        "verify_key",
        "model",
        "certificate",
        "enrolment_key",
    ],
)
@pytest.mark.parametrize("value", ["missing", "", 3])
def test_every_field_is_checked(tmp_path, whole, key, value):
    record = {**whole, key: value}
    if value == "missing":
        del record[key]
    with pytest.raises(UserError, match="damaged node file"):
        read(tmp_path, record)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("private_key", "x"),
        ("authority", "x"),
        ("verify_key", "AAAA"),
        ("enrolment_key", "AAAA"),
        ("certificate", "-"),
        ("model", "ab"),
        ("more", "x"),
    ],
)
def test_and_what_it_says(tmp_path, whole, key, value):
    with pytest.raises(UserError, match="damaged node file"):
        read(tmp_path, {**whole, key: value})


@pytest.mark.parametrize(("text", "words"), [("", "not a node file"), ("[]", "not a node file"), ("{}", "not a node")])
def test_something_else_is_no_node_file(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, text)


def test_a_newer_one_is_not_guessed_at(tmp_path, whole):
    with pytest.raises(UserError, match="newer version"):
        read(tmp_path, {**whole, "format": 3})


def test_an_older_one_says_how_to_renew_it(tmp_path, whole):
    old = {key: value for key, value in whole.items() if key not in ("certificate", "enrolment_key")}
    with pytest.raises(UserError, match="fedsieve enroll FLEET --renew hall"):
        read(tmp_path, {**old, "format": 1})
    assert read_any_node_file(tmp_path / "node.json").certificate == ""
    with pytest.raises(UserError, match="damaged node file"):
        read(tmp_path, {**whole, "format": 1, "more": ""})


def test_one_that_others_can_read_is_refused(tmp_path, whole):
    read(tmp_path, whole)
    (tmp_path / "node.json").chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        read_node_file(tmp_path / "node.json")
