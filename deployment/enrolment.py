"""Make a fleet's keys, add nodes, renew, revoke. No key is ever overwritten; what is renewed keeps its key."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from client.node_file import NodeFile, read_any_node_file
from deployment.certificates import (
    certificate_bytes,
    general_name,
    issue_authority,
    issue_server,
    key_bytes,
    make_tls_key,
    read_certificate,
    read_key,
)
from deployment.enrolment_key import EnrolmentKey, make_enrolment_key, open_enrolment_key
from deployment.fleet import (
    AUTHORITY,
    AUTHORITY_KEY,
    NODES,
    RECORD,
    SERVER,
    SERVER_KEY,
    SIGNING_KEY,
    Fleet,
    Node,
    format_address,
    parse_address,
)
from personalization.errors import UserError
from personalization.system.files import write_atomically
from server.signing_key import SigningKey, read_signing_key

# The server's own tools reach it over loopback, with the same certificate.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def server_names(server: str, also: Sequence[str]) -> tuple[str, ...]:
    """Return the names that a server's certificate has to hold: its own, loopback's and `also`, each once."""
    own = [parse_address(server)[0], *LOOPBACK, *(str(general_name(name).value) for name in also)]
    return tuple(dict.fromkeys(own))


def create_fleet(folder: Path, *, server: str, also: Sequence[str], days: int, now: datetime) -> Fleet:
    """Make a fleet folder: authority, server certificate, plan-signing and enrolment key, no nodes.

    It appears whole or not at all.

    Raises UserError if `folder` is there and not empty, or names make no sense; OSError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something else; choose a new folder for the fleet")
    address, names = format_address(*parse_address(server)), server_names(server, also)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        making.mkdir(mode=0o700)
        (making / NODES).mkdir(mode=0o700)
        fleet = Fleet(folder=making, fleet=secrets.token_hex(8), server=address, names=names, model=None, nodes=())
        for name in (AUTHORITY_KEY, SERVER_KEY):
            write_atomically(fleet.path(name), key_bytes(make_tls_key()))
        write_atomically(fleet.path(SIGNING_KEY), SigningKey(fleet.fleet, Ed25519PrivateKey.generate()).to_json())
        make_enrolment_key(making, fleet.fleet)
        renew_authority(fleet, now=now)
        renew_server(fleet, days=days, now=now)
        fleet.save()
        os.replace(making, folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return replace(fleet, folder=folder)


def check_keys(fleet: Fleet) -> None:
    """Raise UserError if a key of the fleet is missing, damaged, open to others or another fleet's."""
    for key, certificate in ((AUTHORITY_KEY, AUTHORITY), (SERVER_KEY, SERVER)):
        if read_key(fleet.path(key)).public_key() != read_certificate(fleet.path(certificate)).public_key():
            raise UserError(f"{fleet.path(certificate)}: not for {key} beside it; restore both from one backup")
    if read_signing_key(fleet.path(SIGNING_KEY)).fleet != fleet.fleet:
        raise UserError(f"{fleet.path(SIGNING_KEY)}: the key of another fleet; {RECORD} says {fleet.fleet}")
    open_enrolment_key(fleet.folder, fleet.fleet)


def renew_authority(fleet: Fleet, *, now: datetime) -> None:
    """Issue the authority's certificate anew, for its old key: what it signed stays good. Raises UserError, OSError."""
    certificate = issue_authority(read_key(fleet.path(AUTHORITY_KEY)), fleet.fleet, now=now)
    write_atomically(fleet.path(AUTHORITY), certificate_bytes(certificate))


def renew_server(fleet: Fleet, *, days: int, now: datetime) -> None:
    """Issue the server's certificate anew, for its old key and the fleet's names. Raises UserError, OSError."""
    certificate = issue_server(
        read_key(fleet.path(SERVER_KEY)).public_key(),
        fleet.names,
        authority=read_certificate(fleet.path(AUTHORITY)),
        authority_key=read_key(fleet.path(AUTHORITY_KEY)),
        days=days,
        now=now,
    )
    write_atomically(fleet.path(SERVER), certificate_bytes(certificate))


def add_node(fleet: Fleet, name: str, *, key: EnrolmentKey, now: datetime) -> Fleet:
    """Return the fleet with a new node, whose files are written first. Raises UserError, OSError.

    Where an earlier call was killed between the two, the key that it wrote is taken over.
    """
    path = fleet.node_file(name)
    if path.exists():
        private_key = _own_node_file(fleet, name).private_key
    else:
        private_key = _new_node_key()
        write_atomically(path, expected_node_file(fleet, name, private_key, key=key).to_json())
    public_key = _public_key(private_key)
    write_atomically(fleet.public_key_file(name), f"{public_key}\n".encode())
    node = Node(name=name, node=_node_id(public_key), public_key=public_key, enrolled=_time(now))
    grown = fleet.with_node(node)
    grown.save()
    return grown


def refresh_node_file(fleet: Fleet, name: str, *, key: EnrolmentKey) -> bool:
    """Write a node's file again if it no longer says what holds for the fleet; its key stays. True if it was written.

    Raises UserError if the file is not in the fleet folder, or is not this node's; OSError.
    """
    own = _own_node_file(fleet, name)
    wanted = expected_node_file(fleet, name, own.private_key, key=key, known=own.certificate)
    if own != wanted:
        write_atomically(fleet.node_file(name), wanted.to_json())
    return own != wanted


def revoke_node(fleet: Fleet, name: str, *, now: datetime) -> Fleet:
    """Return the fleet with a node revoked, for ever; the file with its private key is removed. Raises OSError."""
    node = fleet.find(name)
    if node is None:
        raise UserError(
            f"{name}: no such node; {fleet.folder} knows {', '.join(n.name for n in fleet.nodes) or 'none'}"
        )
    if node.revoked is None:
        fleet = fleet.with_node(replace(node, revoked=_time(now)))
        fleet.save()
    fleet.node_file(name).unlink(missing_ok=True)
    return fleet


def expected_node_file(fleet: Fleet, name: str, private_key: str, *, key: EnrolmentKey, known: str = "") -> NodeFile:
    """Return what the file of a node with this key (OpenSSH form) has to hold. known: the certificate that it has.

    Raises UserError.
    """
    return NodeFile(
        fleet=fleet.fleet,
        name=name,
        node=_node_id(_public_key(private_key)),
        server=fleet.server,
        private_key=private_key,
        authority=certificate_bytes(read_certificate(fleet.path(AUTHORITY))).decode(),
        verify_key=read_signing_key(fleet.path(SIGNING_KEY)).verify_key,
        model=fleet.model,
        certificate=key.certificate(fleet.fleet, _public_key(private_key), known=known),
        enrolment_key=key.public.text,
    )


def _own_node_file(fleet: Fleet, name: str) -> NodeFile:
    path = fleet.node_file(name)
    if not path.exists():
        raise UserError(
            f"{path}: no longer here, and it alone holds the node's key; "
            "bring it back from the device, or revoke the node and enrol it under another name"
        )
    own, known = read_any_node_file(path), fleet.find(name)
    if own.fleet != fleet.fleet or own.name != name or (known is not None and known.node != own.node):
        raise UserError(f"{path}: the file of {own.name} in fleet {own.fleet}; expected {name} in {fleet.fleet}")
    return own


def _new_node_key() -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def _public_key(private_key: str) -> str:
    key = load_ssh_private_key(private_key.encode(), None).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _node_id(public_key: str) -> str:
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]


def _time(now: datetime) -> str:
    return now.isoformat(timespec="seconds")
