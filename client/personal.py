"""What a device makes of a personalization: the model and the samples that it keeps, a record, and statistics."""

from typing import Any

import numpy as np

from client.backbone import LocalBackbone
from client.model import keep_model
from client.state import ClientState
from personalization.data.tasks import PrivateSamples, task_of
from personalization.model_files.storage import pack_personal_model
from personalization.pipeline import Personalization
from personalization.transformer.groups import share_kept
from personalization.wire.statistics import ClientStatistics


def keep(
    state: ClientState, version: int, backbone: LocalBackbone, samples: PrivateSamples, result: Personalization
) -> None:
    """Keep what was found for a plan; it replaces what was kept for that version. Raises OSError, ClientError."""
    state.save_samples(version, result.samples, data=samples.fingerprint())
    preprocessing = result.fewer_tokens or backbone.facts.preprocessing
    packed = pack_personal_model(
        result.model,
        layers=backbone.layers,
        kept=result.kept,
        backbone=backbone.identifier,
        labels=backbone.facts.labels,
        preprocessing=None if preprocessing is None else preprocessing.to_dict(),
        dtype=backbone.dtype,
        extra={"plan": version},
    )
    keep_model(state, version, packed)
    state.add_record(version, _entry(backbone, samples, result))


def statistics_of(backbone: LocalBackbone, result: Personalization) -> ClientStatistics:
    """Return what is told of a personalization."""
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


def _entry(backbone: LocalBackbone, samples: PrivateSamples, result: Personalization) -> dict[str, Any]:
    """Return what the device notes for itself and for whoever simulates it; none of it is sent."""
    preprocessing, fewer = backbone.facts.preprocessing, result.fewer_tokens
    return {
        **({} if preprocessing is None else {"task": task_of(preprocessing)}),
        **({} if fewer is None else {"vocabulary": fewer.vocabulary}),
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
