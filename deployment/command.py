"""`fedsieve enroll`: everything is checked first, then done, and done again it changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployment.certificates import check_server, read_certificate, utc_now
from deployment.enrolment import (
    add_node,
    check_keys,
    create_fleet,
    refresh_node_file,
    renew_authority,
    renew_server,
    revoke_node,
    server_names,
)
from deployment.enrolment_key import EnrolmentKey, make_enrolment_key, open_enrolment_key
from deployment.fleet import (
    AUTHORITY,
    RECORD,
    SERVER,
    SIGNING_KEY,
    Fleet,
    check_node_name,
    format_address,
    locked,
    parse_address,
    read_fleet,
)
from personalization.errors import UserError
from personalization.model_files.known_models import named_model
from server.signing_key import read_signing_key

if TYPE_CHECKING:
    from personalization.data.texts import TextPreprocessing

SERVER_DAYS = 365


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a fleet has to know of its model.

    root: hash (hexadecimal) that plans for it carry. context: most tokens that it reads at a time, None for images.
    fewest_tokens: how many of its tokens a device keeps at least, None where its vocabulary can't be cut.
    """

    root: str
    context: int | None
    fewest_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What is asked for.

    server: HOST:PORT of the server, None to leave it. also: its other names. nodes: names of nodes to enrol. renew:
    `authority`, `server` or names of nodes. revoke: names of nodes. model: folder or hub name of the only model that
    devices are to take, None to leave it. days: how long a server certificate lasts. enrolment_key: where the private
    enrolment key is, None for the fleet's folder.
    """

    server: str | None = None
    also: Sequence[str] = ()
    nodes: Sequence[str] = ()
    renew: Sequence[str] = ()
    revoke: Sequence[str] = ()
    model: str | None = None
    days: int = SERVER_DAYS
    enrolment_key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises UserError."""
        if not 1 <= self.days <= 3650:
            raise UserError(f"--days {self.days}: expected 1 to 3650")
        for name in self.nodes:
            check_node_name(name)
        both = sorted(set(self.revoke) & {*self.nodes, *self.renew})
        if both:
            raise UserError(f"{', '.join(both)}: cannot be revoked and enrolled or renewed at once")


def enroll(folder: Path, asked: Enrolment, *, now: datetime | None = None) -> dict[str, Any]:
    """Do what is asked in a fleet folder, which is made if need be, and return what then stands there.

    Raises UserError before anything is changed if something asked for can't be; OSError.
    """
    now = now or utc_now()
    model = None if asked.model is None else model_id(asked.model)
    if not (folder / RECORD).exists():
        if asked.server is None or asked.renew or asked.revoke:
            raise UserError(f"{folder}: no fleet here; to make one: fedsieve enroll {folder} --server HOST:PORT")
        create_fleet(folder, server=asked.server, also=asked.also, days=asked.days, now=now)
    with locked(folder):
        before = read_fleet(folder)
        make_enrolment_key(folder, before.fleet)
        check_keys(before)
        key = open_enrolment_key(folder, before.fleet, elsewhere=asked.enrolment_key)
        _check_names(before, asked)
        if any(before.find(name) is None for name in asked.nodes):
            key.check_private()
        fleet = replace(_with_server(before, asked), model=model or before.model)
        fleet = _apply(fleet, asked, key=key, changed=fleet != before, now=now)
        carried = [node.name for node in fleet.active if fleet.node_file(node.name).exists()]
        written = [name for name in carried if refresh_node_file(fleet, name, key=key)]
        added = [node.name for node in fleet.active if before.find(node.name) is None]
        return describe(fleet, now=now) | {"written": sorted({*written, *added})}


def model_id(model: str) -> str:
    """Return the root hash (hexadecimal) that plans for a model carry. Raises UserError. Imports torch."""
    return model_facts(model).root


def model_facts(model: str) -> ModelFacts:
    """Return what a fleet has to know of its model. Raises UserError. Imports torch."""
    from personalization.data.tasks import preprocessing_from_dict
    from personalization.data.texts import TextPreprocessing
    from server.backbone import load_generic_backbone

    loaded = load_generic_backbone(named_model(model), levels=1)
    preprocessing = preprocessing_from_dict(loaded.description["preprocessing"])
    if not isinstance(preprocessing, TextPreprocessing):
        return ModelFacts(root=loaded.root.hex(), context=None)
    return ModelFacts(
        root=loaded.root.hex(), context=preprocessing.context, fewest_tokens=_fewest_tokens(preprocessing)
    )


def _fewest_tokens(preprocessing: "TextPreprocessing") -> int | None:
    from personalization.vocabulary.cut import fewest_tokens

    try:
        return fewest_tokens(preprocessing)
    except UserError:
        return None


def describe(fleet: Fleet, *, now: datetime) -> dict[str, Any]:
    """Return what a fleet folder holds, without secrets: what `--json` prints. Raises UserError."""
    certificates = {}
    for name in (AUTHORITY, SERVER):
        end = read_certificate(fleet.path(name)).not_valid_after_utc
        certificates[name] = {"valid_until": end.isoformat(), "days_left": (end - now).days}
    return {
        "folder": str(fleet.folder),
        "fleet": fleet.fleet,
        "server": fleet.server,
        "names": list(fleet.names),
        "model": fleet.model,
        "verify_key": read_signing_key(fleet.path(SIGNING_KEY)).verify_key,
        "certificates": certificates,
        "nodes": [
            {
                "name": node.name,
                "node": node.node,
                "enrolled": node.enrolled,
                "revoked": node.revoked,
                "file": str(fleet.node_file(node.name)) if fleet.node_file(node.name).exists() else None,
                "public_key_file": str(fleet.public_key_file(node.name)),
            }
            for node in fleet.nodes
        ],
    }


def _check_names(fleet: Fleet, asked: Enrolment) -> None:
    """Raise UserError if a node that is asked for isn't there, or can't be enrolled."""
    revoked = {node.name for node in fleet.revoked}
    for name in {*asked.nodes, *asked.renew} & revoked:
        raise UserError(f"{name}: was revoked, for ever; enrol the device under another name")
    known = {node.name for node in fleet.nodes}
    for name in asked.revoke:
        if name not in known:
            raise UserError(f"{name}: no such node; this fleet has {', '.join(sorted(known)) or 'none'}")
    for name in asked.renew:
        if name not in known | {"authority", "server"}:
            raise UserError(
                f"--renew {name}: expected authority, server or one of {', '.join(sorted(known)) or 'none'}"
            )
        if name in known and not fleet.node_file(name).exists():
            raise UserError(
                f"{fleet.node_file(name)}: no longer here, and it alone holds the node's key; bring it back from the "
                "device, or revoke the node and enrol it under another name"
            )


def _with_server(fleet: Fleet, asked: Enrolment) -> Fleet:
    """Return the fleet with the address and the names asked for, which only a renewal may change."""
    server = fleet.server if asked.server is None else format_address(*parse_address(asked.server))
    names = tuple(dict.fromkeys([*fleet.names, *server_names(server, asked.also)]))
    if (server, names) != (fleet.server, fleet.names) and "server" not in asked.renew:
        raise UserError(
            f"{fleet.folder}: the server is {fleet.server}, also called {', '.join(fleet.names)}; "
            "to change that, add --renew server"
        )
    if asked.server is not None and server != fleet.server:
        names = server_names(server, asked.also)
    return replace(fleet, server=server, names=names)


def _apply(fleet: Fleet, asked: Enrolment, *, key: EnrolmentKey, changed: bool, now: datetime) -> Fleet:
    for name in asked.revoke:
        fleet = revoke_node(fleet, name, now=now)
    if "authority" in asked.renew:
        renew_authority(fleet, now=now)
    if {"authority", "server"} & set(asked.renew):
        renew_server(fleet, days=asked.days, now=now)
        check_server(
            read_certificate(fleet.path(SERVER)), read_certificate(fleet.path(AUTHORITY)), fleet.names[0], now=now
        )
    if changed:
        fleet.save()
    for name in dict.fromkeys(asked.nodes):
        if fleet.find(name) is None:
            fleet = add_node(fleet, name, key=key, now=now)
    return fleet
