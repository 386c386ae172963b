"""A fleet's own certificate authority and the certificate of its server (X.509, elliptic curve keys)."""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from personalization.errors import UserError
from personalization.system.private_files import read_private

AUTHORITY_DAYS = 3650
# A device whose clock is behind accepts a new certificate all the same.
_BACKDATED = timedelta(days=1)
_DNS_NAME = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def make_tls_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key, from the operating system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def issue_authority(key: ec.EllipticCurvePrivateKey, fleet: str, *, now: datetime) -> x509.Certificate:
    """Return a certificate of the authority with this key, for ten years. It signs servers and nothing else.

    Issued again with the same key it verifies what it has signed before.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedsieve fleet {fleet}")])
    usage = _key_usage(certificates=True)
    return (
        _builder(name, name, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def issue_server(
    key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    *,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    days: int,
    now: datetime,
) -> x509.Certificate:
    """Return a certificate for a server that is reached under `names` (host names and IP addresses).

    It lasts `days`, or as long as the authority if that is shorter. Raises UserError for names that make no sense.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedsieve server")])
    end = min(now + timedelta(days=days), authority.not_valid_after_utc)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(subject, authority.subject, key, now, end)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(authority_key, SHA256())
    )


def check_server(certificate: x509.Certificate, authority: x509.Certificate, name: str, *, now: datetime) -> None:
    """Raise UserError unless a device that trusts `authority` accepts this server under `name` at the time `now`."""
    for what, one, remedy in (("authority", authority, "authority"), ("server", certificate, "server")):
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            raise UserError(
                f"the {what}'s certificate is valid from {one.not_valid_before_utc:%Y-%m-%d} to "
                f"{one.not_valid_after_utc:%Y-%m-%d} and it is {now:%Y-%m-%d}; set the clock, or run: "
                f"fedsieve enroll FLEET --renew {remedy}"
            )
    subject, found = general_name(name), certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    if subject not in found.value:
        known = ", ".join(str(one.value) for one in found.value)
        raise UserError(
            f"{name}: not a name of this server, whose certificate says {known}; "
            f"to add it: fedsieve enroll FLEET --renew server --also {name}"
        )
    try:
        verifier = PolicyBuilder().store(Store([authority])).time(now)
        verifier.build_server_verifier(subject).verify(certificate, [])
    except VerificationError as error:
        raise UserError(f"the server's certificate is not one of this fleet's authority ({error})") from error


def general_name(name: str) -> x509.DNSName | x509.IPAddress:
    """Return a host name (lower case) or an IP address as a certificate has it. Raises UserError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        lower = name.lower()
        if not _DNS_NAME.fullmatch(lower) or lower.replace(".", "").isdecimal():
            raise UserError(f"{name!r}: expected a host name such as edge.example.org or an IP address") from None
        return x509.DNSName(lower)


def certificate_bytes(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM (PKCS 8), unencrypted: to be written with mode 600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a PEM file. Raises UserError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        raise UserError(f"{path}: no readable certificate; restore it from a backup of the fleet folder") from None


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a PEM file of mode 600. Raises UserError."""
    try:
        key = load_pem_private_key(read_private(path, "private key"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path}: no readable private key; restore it from a backup of the fleet folder")
    return key


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(end)
    )


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
