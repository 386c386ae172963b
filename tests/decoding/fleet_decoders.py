"""What a fleet's operator and its server read: keys, records, the journal, and replies with noise."""

from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from file_decoder import of_file

from benchmarks.fuzz.wire import LAYOUT, Decoder, NotFlowersError, decode_content, encode_content
from deployment.certificates import read_certificate, read_key
from deployment.command import Enrolment, enroll
from deployment.enrolment_key import ENROLMENT_KEY, open_enrolment_key
from deployment.fleet import AUTHORITY, AUTHORITY_KEY, read_fleet
from deployment.serve.record import earlier_runs
from deployment.status.fields import parse_object
from deployment.status.layers import layer_records
from personalization.settings import PersonalizationSettings
from personalization.wire.plan import Plan
from personalization.wire.privacy_terms import PrivacyTerms
from personalization.wire.statistics import StatisticsError, StatisticsLayout
from server.enrolment_file import EnrolmentFile, read_enrolment_file
from server.journal import Journal, load_journal
from server.planning import FleetKnowledge
from server.signing_key import SigningKey, read_signing_key
from strategies.privacy.release import released_entries
from strategies.private_protocol import check_sum_part, read_answer, released_content
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.identity import advertise, certify, read_advert
from strategies.secure_aggregation.messages import PairReply, PairRequest
from strategies.secure_protocol import SecureRequest, Step


def fleet_decoders(folder: Path) -> dict[str, Decoder]:
    """Return them by name; `folder` gets a fleet of one node."""
    enroll(folder / "fleet", Enrolment(server="a.org", nodes=["hall"]))
    fleet = read_fleet(folder / "fleet")
    key = fleet.path(ENROLMENT_KEY)
    record = (fleet.folder / "fleet.json").read_bytes()
    runs = b'{"runs":[{"number":1,"run_id":"","started":""}]}'
    enrolment = EnrolmentFile("fleet", Ed25519PrivateKey.generate().public_key()).to_json()
    signing = SigningKey("fleet", Ed25519PrivateKey.generate()).to_json()
    certificate, private = fleet.path(AUTHORITY), fleet.path(AUTHORITY_KEY)
    return {
        "certificate": of_file(certificate, certificate.read_bytes(), read_certificate),
        "private key": of_file(private, private.read_bytes(), read_key),
        "file of the status page": Decoder((_journal(folder),), _page, (ValueError,)),
        "journal": of_file(folder / "journal.json", _journal(folder), lambda path: load_journal(path.parent)),
        "enrolment file": of_file(folder / "enrolment.json", enrolment, read_enrolment_file),
        "enrolment key": of_file(key, key.read_bytes(), lambda path: open_enrolment_key(path.parent, fleet.fleet)),
        "signing key": of_file(folder / "signing.json", signing, read_signing_key),
        "fleet record": of_file(folder / "fleet.json", record, lambda path: read_fleet(path.parent)),
        "serve record": of_file(folder / "serve.json", runs, earlier_runs),
        "reply with noise": _noisy_reply(),
        "signed advertisement": _advertisement(),
        "keys of masks told": _told_keys(),
    }


def _journal(folder: Path) -> bytes:
    layout = StatisticsLayout(2, len(PersonalizationSettings().levels), 2 * 18)
    atoms, groups = np.ones(layout.atoms), np.ones(layout.groups)
    known = FleetKnowledge(atoms, atoms, groups, groups, groups == 2)
    Journal({}, "00", known, [{"round": 1}], {7: groups == 1}).save(folder)
    return (folder / "journal.json").read_bytes()


def _page(raw: bytes) -> object:
    known = parse_object(raw).get("knowledge")
    return layer_records(known if isinstance(known, dict) else {}, 1)


def _advertisement() -> Decoder:
    authority, node = Ed25519PrivateKey.generate(), generate_private_key(SECP384R1())
    certificate = certify(authority, "f", node.public_key())
    valid = advertise(node, certificate, fleet="f", epoch=1, public=b"k" * 32)
    return Decoder((valid,), lambda raw: read_advert(raw, authority.public_key(), fleet="f", epoch=1), (MessageError,))


def _told_keys() -> Decoder:
    flags = np.array([1, 0, 1], dtype=np.bool_)
    asked = PairRequest(b"t" * 8, flags).encode()
    request = SecureRequest(step=Step.REVEAL, fleet="f", series=7, round=1, message=asked)
    valid = PairReply([b"k" * 32, b"l" * 32]).encode()
    return Decoder((valid,), lambda raw: check_sum_part(request, raw), (StatisticsError,))


def _noisy_reply() -> Decoder:
    terms = PrivacyTerms(mode="central", clip=1.0, variance=100)
    plan = Plan(version=4, prior=None, dropped=np.zeros(5, dtype=bool), probes=2, budget=0.5, privacy=terms)
    valid = encode_content(released_content(np.zeros(released_entries(LAYOUT)), plan))
    return Decoder(
        (valid,),
        lambda raw: read_answer(decode_content(raw), LAYOUT, plan),
        (NotFlowersError, StatisticsError),
        spare_bytes=1_000_000,
    )
