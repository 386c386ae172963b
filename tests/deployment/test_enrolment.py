import json
import os
import shutil
import subprocess
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

from client.node_file import read_node_file
from deployment.certificates import check_server, read_certificate
from deployment.command import Enrolment, enroll
from deployment.fleet import locked, parse_address, read_fleet
from personalization.errors import UserError
from server.signing_key import read_signing_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SERVER = "edge.example.org:8443"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "fleet"
    run(folder, server=SERVER, also=["10.0.0.5"], nodes=["hall", "kitchen"])
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "fleet"))


def run(folder: Path, *, now: datetime = NOW, **asked):
    return enroll(folder, Enrolment(**asked), now=now)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def keys(folder: Path) -> dict[str, bytes]:
    own = {name: raw for name, raw in contents(folder).items() if name.endswith(("key", "key.json", ".pub"))}
    nodes = {f"private {p.stem}": json.loads(p.read_text())["private_key"] for p in (folder / "nodes").glob("*.json")}
    return {**own, **nodes}


def test_only_the_owner_can_read_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        run(tmp_path / "f", server=SERVER, nodes=["a"])
        run(tmp_path / "f", renew=["authority", "a"])
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "f").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "f", tmp_path / "f" / "nodes")} == {0o700}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_node_file_holds_what_a_device_needs(folder):
    own = read_node_file(folder / "nodes" / "hall.json")
    fleet = read_fleet(folder)
    assert (own.name, own.fleet, own.server, own.model) == ("hall", fleet.fleet, SERVER, None)
    assert own.verify_key == read_signing_key(folder / "signing-key.json").verify_key
    assert own.authority == (folder / "authority.crt").read_text()
    assert own.node == fleet.find("hall").node != fleet.find("kitchen").node


def test_flower_loads_the_keys_of_a_node(folder, tmp_path):
    path = tmp_path / "key"
    path.write_text(read_node_file(folder / "nodes" / "hall.json").private_key)
    arguments = Namespace(auth_supernode_private_key=str(path), auth_supernode_public_key=None)
    private, public = _try_setup_client_authentication(arguments)
    assert isinstance(private.curve, ec.SECP384R1)
    assert try_load_public_key(folder / "nodes" / "hall.pub") == public_key_to_bytes(public)
    assert read_fleet(folder).find("hall").public_key == (folder / "nodes" / "hall.pub").read_text().strip()


@pytest.mark.parametrize("name", ["edge.example.org", "10.0.0.5", "localhost", "127.0.0.1"])
def test_the_server_is_accepted_under_the_names_it_was_given_and_on_loopback(folder, name):
    certificate, authority = read_certificate(folder / "server.crt"), read_certificate(folder / "authority.crt")
    check_server(certificate, authority, name, now=NOW)
    with pytest.raises(UserError, match="not a name of this server"):
        check_server(certificate, authority, "10.0.0.6", now=NOW)


def test_openssl_agrees_with_the_chain(folder):
    if subprocess.run(["openssl", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no openssl here")
    at = str(int(NOW.timestamp()))
    command = ["openssl", "verify", "-attime", at, "-x509_strict", "-purpose", "sslserver", "-CAfile", "authority.crt"]
    for name, code in (("edge.example.org", 0), ("other.example.org", 2)):
        done = subprocess.run(
            [*command, "-verify_hostname", name, "server.crt"], cwd=folder, capture_output=True, check=False
        )
        assert done.returncode == code, done.stderr


def test_the_same_call_again_changes_nothing(folder):
    before = contents(folder)
    found = run(folder, server=SERVER, also=["10.0.0.5"], nodes=["hall", "kitchen"], now=NOW + timedelta(days=3))
    assert contents(folder) == before
    assert found["written"] == []
    assert [node["name"] for node in found["nodes"]] == ["hall", "kitchen"]


def test_renewal_moves_the_dates_and_keeps_every_key(folder):
    before, later = keys(folder), NOW + timedelta(days=100)
    found = run(folder, renew=["server", "authority", "hall"], days=30, now=later)
    assert keys(folder) == before
    assert found["certificates"]["server.crt"]["days_left"] == 30
    assert found["certificates"]["authority.crt"]["days_left"] == 3650
    assert found["written"] == ["hall", "kitchen"]
    assert read_node_file(folder / "nodes" / "hall.json").authority == (folder / "authority.crt").read_text()


def test_another_address_needs_a_renewal_and_reaches_the_node_files(folder):
    before, old = contents(folder), read_node_file(folder / "nodes" / "hall.json")
    with pytest.raises(UserError, match="add --renew server"):
        run(folder, server="new.example.org")
    with pytest.raises(UserError, match="add --renew server"):
        run(folder, also=["10.0.0.9"])
    assert contents(folder) == before
    found = run(folder, server="new.example.org:9000", renew=["server"])
    own = read_node_file(folder / "nodes" / "hall.json")
    assert (own.server, own.node, own.private_key) == ("new.example.org:9000", old.node, old.private_key)
    assert found["names"] == ["new.example.org", "localhost", "127.0.0.1", "::1"]
    certificate, authority = read_certificate(folder / "server.crt"), read_certificate(folder / "authority.crt")
    check_server(certificate, authority, "new.example.org", now=NOW)
    with pytest.raises(UserError):
        check_server(certificate, authority, "edge.example.org", now=NOW)


def test_a_revoked_node_is_listed_and_never_comes_back(folder):
    found = run(folder, revoke=["hall"])
    by_name = {node["name"]: node for node in found["nodes"]}
    assert by_name["hall"]["revoked"] == NOW.isoformat()
    assert by_name["kitchen"]["revoked"] is None
    fleet = read_fleet(folder)
    assert [node.name for node in fleet.revoked] == ["hall"]
    assert [node.name for node in fleet.active] == ["kitchen"]
    assert not (folder / "nodes" / "hall.json").exists()
    assert (folder / "nodes" / "hall.pub").exists()
    again = contents(folder)
    run(folder, revoke=["hall"], now=NOW + timedelta(days=1))
    assert contents(folder) == again
    for asked in ({"nodes": ["hall"]}, {"renew": ["hall"]}):
        with pytest.raises(UserError, match="was revoked"):
            run(folder, **asked)


def test_a_file_that_was_carried_away_is_not_made_again(folder):
    (folder / "nodes" / "hall.json").unlink()
    before = contents(folder)
    found = run(folder, nodes=["hall"])
    assert contents(folder) == before
    assert found["nodes"][0]["file"] is None
    with pytest.raises(UserError, match="bring it back"):
        run(folder, renew=["hall"])


def test_an_enrolment_that_was_killed_is_finished_with_the_same_key(folder):
    record = (folder / "fleet.json").read_bytes()
    run(folder, nodes=["attic"])
    key = (folder / "nodes" / "attic.json").read_bytes()
    (folder / "fleet.json").write_bytes(record)
    (folder / "nodes" / "attic.pub").unlink()
    run(folder, nodes=["attic"])
    assert (folder / "nodes" / "attic.json").read_bytes() == key
    assert read_fleet(folder).find("attic").node == json.loads(key)["node"]


def test_a_fleet_that_could_not_be_made_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "fleet", server=SERVER)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_named_is_the_only_one_that_devices_take(folder, tiny_vit_folder):
    found = run(folder, model=str(tiny_vit_folder))
    assert found["written"] == ["hall", "kitchen"]
    assert read_node_file(folder / "nodes" / "hall.json").model == found["model"] == read_fleet(folder).model
    assert run(folder)["model"] == found["model"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"nodes": ["Küche"]}, "node name"),
        ({"nodes": ["server"]}, "node name"),
        ({"nodes": ["../x"]}, "node name"),
        ({"days": 0}, "--days"),
        ({"revoke": ["nobody"]}, "no such node"),
        ({"renew": ["nobody"]}, "expected authority, server or one of hall, kitchen"),
        ({"revoke": ["hall"], "renew": ["hall"]}, "at once"),
        ({"server": "a b:1", "renew": ["server"]}, "expected a host name"),
        ({"server": "x.org:99999"}, "expected HOST:PORT"),
        ({"nodes": ["new"], "revoke": ["nobody"]}, "no such node"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(folder, asked, words):
    before = contents(folder)
    with pytest.raises(UserError, match=words):
        run(folder, **asked)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["authority.key", "server.key", "signing-key.json", "fleet.json", "nodes/hall.json"])
def test_a_key_that_others_can_read_is_refused(folder, name):
    (folder / name).chmod(0o640)
    with pytest.raises(UserError, match=f"chmod 600 .*{name}"):
        run(folder)


@pytest.mark.parametrize("name", ["authority.key", "server.key", "signing-key.json"])
@pytest.mark.parametrize("spoil", ["lost", "damaged", "of another fleet"])
def test_a_key_that_is_gone_is_never_replaced(folder, tmp_path, name, spoil):
    path = folder / name
    path.unlink()
    if spoil == "damaged":
        path.write_text("{}")
    elif spoil == "of another fleet":
        run(tmp_path / "other", server=SERVER)
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    if path.exists():
        path.chmod(0o600)
    before = contents(folder)
    with pytest.raises(UserError, match=name):
        run(folder, nodes=["attic"], renew=["server"])
    assert contents(folder) == before


def test_the_node_file_of_another_fleet_is_refused(folder, tmp_path):
    run(tmp_path / "other", server=SERVER, nodes=["hall"])
    path = folder / "nodes" / "hall.json"
    path.write_bytes((tmp_path / "other" / "nodes" / "hall.json").read_bytes())
    with pytest.raises(UserError, match="the file of hall in fleet"):
        run(folder)


def test_two_at_once_do_not_mix(folder):
    with locked(folder), pytest.raises(UserError, match="another fedsieve enroll"):
        run(folder, nodes=["attic"])
    run(folder, nodes=["attic"])


def test_a_folder_that_holds_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        run(tmp_path, server=SERVER)
    with pytest.raises(UserError, match="--server HOST:PORT"):
        run(tmp_path / "new", nodes=["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("a.org:1", ("a.org", 1)),
        ("A.org", ("a.org", 8443)),
        ("[::1]:5", ("::1", 5)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_addresses(address, parsed):
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["", ":1", "a:b", "a:0", "::1", "http://a:1", "a:1:2", "[a", "a/b:1"])
def test_addresses_that_make_no_sense(address):
    with pytest.raises(UserError, match="expected"):
        parse_address(address)
