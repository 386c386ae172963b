"""What a device does with a request: check it, personalize on its own samples, and say what that amounts to."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.backbone import BackboneShelf, LocalBackbone
from client.data import Config, PrivateData
from client.identity import Identity
from client.node_file import SUMS_ONLY
from client.personal import keep, statistics_of
from client.privacy import Charge, admit
from client.secure import answer_step, check_invitation, mask, read_secure_settings
from client.settings import needs_labels, read_settings
from client.state import ClientState
from client.verification import check_request, check_step, read_trust
from personalization.data.tasks import PrivateSamples
from personalization.pipeline import Personalization
from personalization.pipeline import personalize as own_personalize
from personalization.transformer.groups import dropped_units
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout, to_vector
from strategies.privacy.release import deviations, released_entries
from strategies.private_protocol import released_content
from strategies.protocol import PLAN, read_plan, reply_content
from strategies.secure_aggregation.entropy import Entropy, system_entropy
from strategies.secure_protocol import SecureRequest, Step, read_secure_request, secure_reply
from strategies.signatures import plan_digest

Personalize = Callable[..., Personalization]
Identify = Callable[[Config], Identity]
# Takes the node's configuration and the plan, and returns what the client's share of noise is drawn from.
Noise = Callable[[Config, Plan], Entropy]
# Takes the node's configuration, the plan, the layout and the vector, and returns what is sent in its place.
Tamper = Callable[[Config, Plan, StatisticsLayout, NDArray[np.float64]], NDArray[np.float64]]
Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Substitutes:
    """What simulations and tests put in the place of a device's own doing; None leaves it."""

    personalize: Personalize | None = None
    tamper: Tamper | None = None
    noise: Noise | None = None


@dataclass(frozen=True, kw_only=True)
class Device:
    """Who answers. name: what its random numbers follow from. node_config, run_config: its own and the run's.

    shelf: of backbones that are put together. load: where its samples come from. identify: who it is in secure sums.
    """

    state: ClientState
    shelf: BackboneShelf
    name: str
    node_config: Config
    run_config: Config
    load: PrivateData
    identify: Identify
    substitutes: Substitutes


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A request for statistics that was checked. root: hash of the backbone. digest: of the plan.

    request: of a secure sum, None for statistics in the open. identity: who the device is in that sum, None where it
    is to give nothing to it. charge: what the answer costs in privacy. final: whether the personal model is to stay.
    """

    plan: Plan
    layout: StatisticsLayout
    root: bytes
    digest: bytes
    request: SecureRequest | None
    identity: Identity | None
    charge: Charge
    final: bool


def answer(content: RecordDict, device: Device, *, final: bool) -> RecordDict:
    """Return the reply to a request: the statistics vector for its plan and the plan's version, or a part of a sum.

    final: whether the personal model is there to stay. Only then it is trained: a round learns from the search alone.
    The same request on the same state and data gives the same reply and leaves the same state: what an earlier
    attempt at this version left is replaced. Only for a secure sum it is refused: a second vector under other masks
    would say something. What an answer costs in privacy is in the device's ledger before it leaves, and what its budget
    forbids is refused before any work is done. A device that has a key to check plans with stores nothing of a request
    before it has. Raises what the egress guard turns into codes.
    """
    request = read_secure_request(content)
    if request is not None and PLAN not in content:
        return _part_of_sum(content, request, device)
    asked = _admit(content, request, device, final=final)
    return _release(_vector(content, asked, device), asked, device)


def _part_of_sum(content: RecordDict, request: SecureRequest, device: Device) -> RecordDict:
    trust = read_trust(device.node_config)
    if trust is not None:
        check_step(content, trust)
    return secure_reply(answer_step(request, device.state, device.identify(device.node_config)))


def _admit(content: RecordDict, request: SecureRequest | None, device: Device, *, final: bool) -> Admitted:
    """Return what is asked for, once it is known that it may be answered."""
    trust = read_trust(device.node_config)
    plan, layout, root = read_plan(content)
    if trust is not None:
        check_request(content, trust, device.state)
    identity, digest = _check_privacy(request, device), plan_digest(content)
    charge = admit(plan, layout, request, digest=digest, state=device.state, node_config=device.node_config)
    return Admitted(
        plan=plan,
        layout=layout,
        root=root,
        digest=digest,
        request=request,
        identity=identity,
        charge=charge,
        final=final,
    )


def _check_privacy(request: SecureRequest | None, device: Device) -> Identity | None:
    """Return who the device is in the sum that is asked for, None if none is; raise what stands in its way."""
    if request is None and device.node_config.get(SUMS_ONLY):
        raise ClientError(
            ClientFailure.OPEN_REFUSED,
            "the server asked for this device's statistics in the open, which it gives to sums alone; serve the fleet "
            "with --secure-aggregation sum, or let this device join with --in-the-open",
        )
    if request is None or request.step is not Step.MASK:
        return None
    identity = device.identify(device.node_config)
    check_invitation(request, device.state, identity, read_secure_settings(device.node_config))
    return identity


def _vector(content: RecordDict, asked: Admitted, device: Device) -> Vector:
    """Personalize for a plan, keep what comes of it, and return the statistics [statistics] of that."""
    backbone = device.shelf.get(content, device.state, asked.root, asked.plan.dropped)
    samples = device.load(device.node_config, device.run_config, backbone.facts)
    result = _personalize(samples, backbone, asked, device)
    keep(device.state, asked.plan.version, backbone, samples, result)
    vector = to_vector(statistics_of(backbone, result), asked.layout)
    tamper = device.substitutes.tamper
    return vector if tamper is None else tamper(device.node_config, asked.plan, asked.layout, vector)


def _personalize(samples: PrivateSamples, backbone: LocalBackbone, asked: Admitted, device: Device) -> Personalization:
    plan, layout = asked.plan, asked.layout
    past = device.state.load_samples(plan.version, layout.atoms, data=samples.fingerprint())
    newcomer = past is None or not len(past.measurements)
    settings = read_settings(device.run_config, device.node_config, plan, device.name, newcomer=newcomer)
    if (layout.layers, layout.levels) != (len(backbone.layers), len(settings.levels)):
        raise ClientError(ClientFailure.REQUEST_INVALID, "the layout asked for is not that of the backbone")
    return (device.substitutes.personalize or own_personalize)(
        backbone.model,
        samples.inputs,
        labels=samples.labels if needs_labels(settings) else None,
        prior=plan.prior,
        dropped_units=dropped_units(backbone.groups, plan.dropped),
        past=past,
        training=samples.training,
        preprocessing=backbone.facts.preprocessing,
        final=asked.final,
        settings=settings,
    )


def _release(vector: Vector, asked: Admitted, device: Device) -> RecordDict:
    """Return the reply that tells `vector` [statistics] as it is asked for; what that costs is charged before."""
    if asked.request is None:
        device.state.change(asked.charge.changes())
        return _open_reply(vector, asked.plan, asked.layout)
    if asked.identity is None:
        return secure_reply(b"")
    noise = device.substitutes.noise
    masked = mask(
        asked.request,
        vector,
        asked.plan,
        asked.layout,
        asked.digest,
        device.state,
        asked.identity,
        read_secure_settings(device.node_config),
        charge=asked.charge,
        entropy=system_entropy if noise is None else noise(device.node_config, asked.plan),
    )
    return secure_reply(masked)


def _open_reply(vector: Vector, plan: Plan, layout: StatisticsLayout) -> RecordDict:
    if plan.privacy is None:
        return reply_content(vector, plan.version)
    released = deviations(vector, plan, layout) if plan.privacy.release else np.zeros(released_entries(layout))
    return released_content(released, plan)
