"""Judge a fleet of text: every client's own personal model on its own later text, beside the dense model."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from personalization.allocation.footprint import measure_latency
from personalization.data.tasks import text_samples
from personalization.data.texts import TextPreprocessing
from personalization.model_files.backbone import Backbone
from personalization.model_files.storage import LoadedPersonalModel
from personalization.prediction.scoring import TokenScores, score_spelled, score_tokens
from personalization.vocabulary.spelling import Spelling, spelling
from simulations.speakers import SpeakerData

_RUNS, _WARM_UP = 5, 1  # of a language model, which takes a thousand times as long as the bundled one


class TextEvaluator:
    """Judges models on the later text of the clients that they belong to, beside the dense model."""

    def __init__(self, backbone: Backbone, data: SpeakerData, *, latency: bool = True) -> None:
        """Take the dense model and who says what. latency: whether to time every model."""
        assert isinstance(backbone.preprocessing, TextPreprocessing)
        self._data, self._latency, self._whole = data, latency, backbone.preprocessing
        self._dense = cache(lambda client: self._score(client, backbone.model, None))

    def loaded_row(self, client: int, loaded: LoadedPersonalModel, round_number: int | None = None) -> dict[str, Any]:
        """Return `row` for a model that was kept, in its own tokens, and in `vocabulary` how many it has."""
        record = loaded.manifest.preprocessing
        own = None if record is None else TextPreprocessing.from_dict(record)
        spelled = None if own in (None, self._whole) else spelling(self._whole, own)
        row = self.row(client, loaded.model, round_number, spelled=spelled)
        return row | {"vocabulary": loaded.manifest.config["vocab_size"]}

    def row(
        self, client: int, model: nn.Module, round_number: int | None = None, *, spelled: Spelling | None = None
    ) -> dict[str, Any]:
        """Return what `model` achieves for a client, whose text is the same in every round.

        client, name, samples; of the dense and of the personal model bits per token and perplexity on the test windows,
        in tokens of the dense model; perplexity_ratio, personal to dense; agreement, the share of these tokens at which
        both would say the same; and latency_ms of one window if that is wanted. spelled: how tokens are spelled for a
        model with fewer.
        """
        del round_number
        speaker, dense, own = self._data.speakers[client], self._dense(client), self._score(client, model, spelled)
        row: dict[str, Any] = {
            "client": client,
            "name": speaker.name,
            "samples": min(len(speaker.private), speaker.measured),
            "test_tokens": own.nats.numel(),
            "dense_bits_per_token": dense.bits_per_token,
            "personal_bits_per_token": own.bits_per_token,
            "dense_perplexity": dense.perplexity,
            "personal_perplexity": own.perplexity,
            "perplexity_ratio": own.perplexity / dense.perplexity,
            "agreement": float((own.first == dense.first).double().mean()),
        }
        if self._latency:
            window = speaker.private[:1] if spelled is None else spelled.spell_windows(speaker.private[:1])
            row["latency_ms"] = measure_latency(model, text_samples(window).inputs, runs=_RUNS, warm_up=_WARM_UP)
        return row

    def _score(self, client: int, model: nn.Module, spelled: Spelling | None) -> TokenScores:
        windows = self._data.speakers[client].test
        if spelled is not None:
            return score_spelled(model, windows, spelled)
        samples = text_samples(windows)
        assert isinstance(samples.labels, torch.Tensor)
        return score_tokens(model, samples.inputs["input_ids"], samples.labels)


def text_quality(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a report's summary says of quality: means, and ratios of perplexity as geometric means.

    The worst decile is the geometric mean of the tenth of the clients that lost most.
    """
    ratios = np.sort(np.log([row["perplexity_ratio"] for row in rows]))[::-1]

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    counted = {"vocabulary_mean": mean("vocabulary")} if "vocabulary" in rows[0] else {}
    return {
        "dense_bits_per_token_mean": mean("dense_bits_per_token"),
        "personal_bits_per_token_mean": mean("personal_bits_per_token"),
        "dense_perplexity_mean": mean("dense_perplexity"),
        "personal_perplexity_mean": mean("personal_perplexity"),
        "perplexity_ratio_mean": math.exp(float(ratios.mean())),
        "perplexity_ratio_worst_decile": math.exp(float(ratios[: max(1, len(ratios) // 10)].mean())),
        **counted,
    }
