from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from deployment.certificates import (
    AUTHORITY_DAYS,
    check_server,
    general_name,
    issue_authority,
    issue_server,
    make_tls_key,
)
from personalization.errors import UserError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ("edge.example.org", "127.0.0.1", "::1")
KEY, OTHER_KEY, SERVER_KEY = make_tls_key(), make_tls_key(), make_tls_key()


def authority(key=KEY, now=NOW) -> x509.Certificate:
    return issue_authority(key, "f", now=now)


def server(*, signed_by=KEY, days=90, now=NOW, authority_now=NOW) -> x509.Certificate:
    of = issue_authority(signed_by, "f", now=authority_now)
    return issue_server(SERVER_KEY.public_key(), NAMES, authority=of, authority_key=signed_by, days=days, now=now)


@pytest.mark.parametrize("name", [*NAMES, "EDGE.example.org", "0:0:0:0:0:0:0:1"])
def test_a_device_accepts_the_server_under_each_of_its_names(name):
    check_server(server(), authority(), name, now=NOW)


@pytest.mark.parametrize("name", ["example.org", "edge.example.com", "127.0.0.2", "a.edge.example.org"])
def test_and_under_no_other(name):
    with pytest.raises(UserError, match="not a name of this server"):
        check_server(server(), authority(), name, now=NOW)


def test_dates_are_as_asked_and_never_beyond_the_authority():
    certificate = server(days=90)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=90)
    assert authority().not_valid_after_utc == NOW + timedelta(days=AUTHORITY_DAYS)
    late = NOW + timedelta(days=AUTHORITY_DAYS - 5)
    assert server(days=90, now=late).not_valid_after_utc == authority().not_valid_after_utc


@pytest.mark.parametrize(("days", "what"), [(91, "server"), (AUTHORITY_DAYS + 1, "authority"), (-2, "authority")])
def test_outside_its_dates_it_is_refused(days, what):
    with pytest.raises(UserError, match=f"the {what}'s certificate is valid from"):
        check_server(server(), authority(), NAMES[0], now=NOW + timedelta(days=days))


def test_a_device_whose_clock_is_ten_minutes_behind_accepts_a_new_certificate():
    check_server(server(), authority(), NAMES[0], now=NOW - timedelta(minutes=10))


def test_the_server_of_another_authority_is_refused():
    with pytest.raises(UserError, match="not one of this fleet's authority"):
        check_server(server(signed_by=OTHER_KEY), authority(), NAMES[0], now=NOW)


def test_a_renewed_authority_verifies_what_the_old_one_signed_and_the_other_way_round():
    later = NOW + timedelta(days=30)
    check_server(server(), authority(now=later), NAMES[0], now=later)
    check_server(server(now=later, authority_now=later), authority(), NAMES[0], now=later)


def test_a_server_cannot_sign_others():
    own = server(days=300)
    forged = issue_server(
        OTHER_KEY.public_key(), ("evil.org",), authority=own, authority_key=SERVER_KEY, days=9, now=NOW
    )
    with pytest.raises(UserError, match="not one of this fleet's authority"):
        check_server(forged, authority(), "evil.org", now=NOW)


@pytest.mark.parametrize(
    "name", ["", "a b", "-a.org", "a..b", "*.example.org", "1.2.3", "é.org", "a" * 64, "https://a"]
)
def test_names_that_make_no_sense_are_refused(name):
    with pytest.raises(UserError, match="expected a host name"):
        general_name(name)
