"""What a device does with a plan: personalize on its own samples, keep the result, and say what it amounts to."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.backbone import BackboneShelf, LocalBackbone
from client.data import Config, PrivateData, PrivateSamples
from client.identity import Identity
from client.model import keep_model
from client.node_file import SUMS_ONLY
from client.own_model import OwnModel, own_model
from client.privacy import admit
from client.secure import answer_step, check_invitation, mask, read_secure_settings
from client.settings import needs_labels, read_settings
from client.state import ClientState
from client.verification import check_request, check_step, read_trust
from personalization.codes import ClientError, ClientFailure
from personalization.groups import dropped_units, share_kept
from personalization.pipeline import Personalization
from personalization.pipeline import personalize as own_personalize
from personalization.plan import Plan
from personalization.statistics import ClientStatistics, StatisticsLayout, to_vector
from personalization.storage import pack_personal_model
from personalization.tasks import task_of
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


def answer(
    content: RecordDict,
    *,
    state: ClientState,
    shelf: BackboneShelf,
    client: str,
    node_config: Config,
    run_config: Config,
    load: PrivateData,
    identify: Identify,
    personalize: Personalize | None = None,
    tamper: Tamper | None = None,
    noise: Noise | None = None,
) -> RecordDict:
    """Return the reply to a request: the statistics vector for its plan and the plan's version, or a part of a sum.

    The same request on the same state and data gives the same reply and leaves the same state: what an earlier
    attempt at this version left is replaced. Only for a secure sum it is refused: a second vector under other masks
    would say something. What an answer costs in privacy is in the device's ledger before it leaves, and what its budget
    forbids is refused before any work is done. A device that has a key to check plans with stores nothing of a request
    before it has. Raises what the egress guard turns into codes.
    """
    request, trust = read_secure_request(content), read_trust(node_config)
    if request is not None and PLAN not in content:
        if trust is not None:
            check_step(content, trust)
        return secure_reply(answer_step(request, state, identify(node_config)))
    plan, layout, root = read_plan(content)
    if trust is not None:
        check_request(content, trust, state)
    identity = _check_privacy(request, state, node_config, identify)
    digest = plan_digest(content)
    charge = admit(plan, layout, request, digest=digest, state=state, node_config=node_config)
    backbone = shelf.get(content, state, root, plan.dropped)
    own = own_model(backbone, load(node_config, run_config, backbone.facts), run_config)
    samples = own.samples
    past = state.load_samples(plan.version, layout.atoms, data=samples.fingerprint())
    newcomer = past is None or not len(past.measurements)
    settings = read_settings(run_config, node_config, plan, client, newcomer=newcomer)
    if (layout.layers, layout.levels) != (len(backbone.layers), len(settings.levels)):
        raise ClientError(ClientFailure.REQUEST_INVALID, "the layout asked for is not that of the backbone")
    result = (personalize or own_personalize)(
        own.model,
        samples.inputs,
        labels=samples.labels if needs_labels(settings) else None,
        prior=plan.prior,
        dropped_units=dropped_units(backbone.groups, plan.dropped),
        past=past,
        training=samples.training,
        budget_of=backbone.model,
        settings=settings,
    )
    _keep(state, plan, backbone, own, result)
    vector = to_vector(_statistics(backbone, result), layout)
    if tamper is not None:
        vector = tamper(node_config, plan, layout, vector)
    if request is None:
        state.change(charge.changes())
        return _open_reply(vector, plan, layout)
    if identity is None:
        return secure_reply(b"")
    drawn = system_entropy if noise is None else noise(node_config, plan)
    summing = read_secure_settings(node_config)
    masked = mask(request, vector, plan, layout, digest, state, identity, summing, charge=charge, entropy=drawn)
    return secure_reply(masked)


def _open_reply(vector: NDArray[np.float64], plan: Plan, layout: StatisticsLayout) -> RecordDict:
    if plan.privacy is None:
        return reply_content(vector, plan.version)
    released = deviations(vector, plan, layout) if plan.privacy.release else np.zeros(released_entries(layout))
    return released_content(released, plan)


def _check_privacy(
    request: SecureRequest | None, state: ClientState, node_config: Config, identify: Identify
) -> Identity | None:
    """Return who the device is in the sum that is asked for, None if none is; raise what stands in its way."""
    if request is None and node_config.get(SUMS_ONLY):
        raise ClientError(
            ClientFailure.OPEN_REFUSED,
            "the server asked for this device's statistics in the open, which it gives to sums alone; serve the fleet "
            "with --secure-aggregation sum, or let this device join with --in-the-open",
        )
    if request is None or request.step is not Step.MASK:
        return None
    identity = identify(node_config)
    check_invitation(request, state, identity, read_secure_settings(node_config))
    return identity


def _keep(
    state: ClientState,
    plan: Plan,
    backbone: LocalBackbone,
    own: OwnModel,
    result: Personalization,
) -> None:
    state.save_samples(plan.version, result.samples, data=own.samples.fingerprint())
    preprocessing = own.preprocessing
    packed = pack_personal_model(
        result.model,
        layers=backbone.layers,
        kept=result.kept,
        backbone=backbone.identifier,
        labels=backbone.facts.labels,
        preprocessing=None if preprocessing is None else preprocessing.to_dict(),
        dtype=backbone.dtype,
        extra={"plan": plan.version},
    )
    keep_model(state, plan.version, packed)
    state.add_record(plan.version, _entry(backbone, own.samples, result))


def _entry(backbone: LocalBackbone, samples: PrivateSamples, result: Personalization) -> dict[str, Any]:
    """Return what the device notes for itself and for whoever simulates it; none of it is sent."""
    preprocessing = backbone.facts.preprocessing
    return {
        **({} if preprocessing is None else {"task": task_of(preprocessing)}),
        "samples": samples.count,
        "evaluations": result.evaluations,
        "fit_r2": result.fit_r2,
        "agreement": result.agreement,
        "entropy_increase": result.entropy_increase,
        "weights_kept": result.weights_kept,
        "levels": np.asarray(result.levels).tolist(),
        "personalized_layers": [
            layer.name for layer, flag in zip(backbone.layers, result.personalized, strict=True) if flag
        ],
    }


def _statistics(backbone: LocalBackbone, result: Personalization) -> ClientStatistics:
    # A clock would make replies irreproducible and tell devices apart, so the share of weights stands in for the
    # latency ratio; latency itself is measured on the device and stays there.
    return ClientStatistics(
        sensitivity=result.sensitivity,
        precision=result.precision,
        level=np.asarray(result.levels, dtype=np.float64),
        personalized=result.personalized,
        group_kept=share_kept(backbone.groups, result.kept),
        agreement=result.agreement,
        entropy_increase=result.entropy_increase,
        size_ratio=result.weights_kept,
        latency_ratio=result.weights_kept,
        fit_r2=result.fit_r2,
    )
