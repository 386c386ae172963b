import json

import pytest

from client.identity import read_identity
from client.node_file import read_node_file
from deployment.command import Enrolment, enroll
from deployment.enrolment_key import ENROLMENT, ENROLMENT_KEY
from personalization.errors import UserError
from personalization.wire.codes import ClientError, ClientFailure
from server.enrolment_file import read_enrolment_file
from strategies.secure_aggregation.identity import check_certificate


@pytest.fixture
def fleet(tmp_path):
    enroll(tmp_path / "fleet", Enrolment(server="a.org", nodes=["hall"]))
    return tmp_path / "fleet"


def identity(fleet, name):
    return read_identity({"node-file": str(fleet / "nodes" / f"{name}.json")})


def test_a_node_file_holds_what_other_devices_believe(fleet):
    own, public = identity(fleet, "hall"), read_enrolment_file(fleet / ENROLMENT)
    assert (own.fleet, own.authority) == (public.fleet, public.authority)
    check_certificate(own.certificate, public.authority, own.fleet, own.key.public_key())
    assert (fleet / ENROLMENT_KEY).stat().st_mode & 0o777 == 0o600
    secret = json.loads((fleet / ENROLMENT_KEY).read_text())["private_key"]
    assert all(secret not in (fleet / name).read_text() for name in (ENROLMENT, "fleet.json", "nodes/hall.json"))


def test_the_key_may_be_kept_elsewhere_and_is_asked_for_when_it_is_needed(fleet, tmp_path):
    away = tmp_path / "away.json"
    (fleet / ENROLMENT_KEY).rename(away)
    enroll(fleet, Enrolment(renew=["server"]))
    enroll(fleet, Enrolment(server="b.org", renew=["server"]))
    before = identity(fleet, "hall").certificate
    with pytest.raises(UserError, match="--enrolment-key FILE"):
        enroll(fleet, Enrolment(nodes=["attic"]))
    assert not (fleet / "nodes" / "attic.json").exists()
    enroll(fleet, Enrolment(nodes=["attic"], enrolment_key=away))
    assert identity(fleet, "attic").authority == identity(fleet, "hall").authority
    assert identity(fleet, "hall").certificate == before
    assert not (fleet / ENROLMENT_KEY).exists()


def test_the_key_of_another_fleet_is_refused(fleet, tmp_path):
    enroll(tmp_path / "other", Enrolment(server="a.org"))
    with pytest.raises(UserError, match="not the enrolment key of fleet"):
        enroll(fleet, Enrolment(nodes=["attic"], enrolment_key=tmp_path / "other" / ENROLMENT_KEY))


def test_a_fleet_of_an_earlier_version_is_brought_up_to_date(fleet):
    path = fleet / "nodes" / "hall.json"
    record = json.loads(path.read_text())
    old = {key: value for key, value in record.items() if key not in ("certificate", "enrolment_key")}
    path.write_text(json.dumps({**old, "format": 1}))
    for name in (ENROLMENT, ENROLMENT_KEY):
        (fleet / name).unlink()
    with pytest.raises(ClientError, match="--renew hall") as raised:
        identity(fleet, "hall")
    assert raised.value.code is ClientFailure.SUM_REFUSED
    assert enroll(fleet, Enrolment(renew=["hall"]))["written"] == ["hall"]
    assert read_node_file(path).private_key == record["private_key"]
