"""A language model as files for a device: ONNX and its tokenizer, compared with torch on the client's own text."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from personalization.data.tasks import TextBatch, load_samples
from personalization.data.texts import WINDOW_TOKENS, TextPreprocessing, Tokens
from personalization.device.checks import TextExportCheck
from personalization.device.decoder import DecoderRun
from personalization.device.manifest import DeviceText, Precision
from personalization.device.runtime import open_session
from personalization.errors import UserError
from personalization.export.decoder import read_decoder
from personalization.export.exported import Exported
from personalization.export.onnx_decoder import decoder_graph
from personalization.export.onnx_products import FloatProducts, Int8Products
from personalization.export.smoothing import channel_ranges, smooth
from personalization.model_files.source_model import SourceModel
from personalization.transformer.tokenizer_fit import check_tokenizer

# The most that an export may differ from torch: nats of divergence at a token, and perplexity as a multiple.
FP32_DIVERGENCE, FP32_RATIO = 1e-3, 1.001
INT8_DIVERGENCE, INT8_RATIO = 0.1, 1.1


def export_language_model(
    source: SourceModel, preprocessing: TextPreprocessing, data: Path, *, precision: Precision
) -> Exported:
    """Return a language model as files for a device, checked on windows of the text in `data`.

    Every other window is compared; int8 takes the ranges of channels from the rest. Raises UserError if the model is
    of a family that is not known, if there is too little text, or if the export is too far from torch.
    """
    if precision == "int8-static":
        raise UserError(f"{source.name}: a language model; it is exported with --int8 dynamic or none, not static")
    batch = TextBatch(tokens=min(WINDOW_TOKENS, preprocessing.context))
    tokens = load_samples(data, preprocessing, labels=(), batch=batch).inputs["input_ids"]
    if source.dense:
        check_tokenizer(source.model, tokens[:1])
    graph = language_graph(source.model, tokens[::2], precision)
    check = compare_text(source.model, graph, tokens[1::2], precision)
    if not check.passed:
        raise UserError(
            f"{source.name}: the {precision} export is too far from the model: {check.divergence:.2g} nats a token "
            f"({check.divergence_allowed:g} allowed), {check.perplexity_ratio:.3g} times its perplexity "
            f"({check.perplexity_ratio_allowed:g} allowed); export with another --int8, an older export is kept"
        )
    tokenizer = preprocessing.tokenizer.encode()
    digest = hashlib.sha256(tokenizer).hexdigest()
    text = DeviceText(
        tokenizer_file=f"tokenizer-{digest[:16]}.json",
        tokenizer_sha256=digest,
        separator=preprocessing.separator,
        stops=_stops(source.model),
        context=preprocessing.context,
    )
    return Exported(graph=graph, preprocessing=text, labels=(), check=check, tokenizer=tokenizer)


def language_graph(model: nn.Module, tokens: Tensor, precision: Precision) -> bytes:
    """Return `model` as an ONNX file; int8 takes the ranges of its channels on `tokens` [windows, positions].

    The ranges leave nothing in the file but factors between matrices that are one after the other. Raises UserError.
    """
    decoder = read_decoder(model)
    if precision == "fp32":
        graph = decoder_graph(decoder, FloatProducts())
    else:
        graph = decoder_graph(smooth(decoder, channel_ranges(model, decoder, tokens)), Int8Products())
    return bytes(graph.SerializeToString())


@torch.inference_mode()
def compare_text(model: nn.Module, graph: bytes, tokens: Tensor, precision: Precision) -> TextExportCheck:
    """Return how far the predictions of an exported model are from those of torch on `tokens` [windows, positions].

    The logits of one window exist at a time.
    """
    session = open_session(graph)
    divergence, lost, same = list[float](), list[float](), list[float]()
    for window in tokens:
        reference = model(input_ids=window[None], use_cache=False).logits[0].double().log_softmax(-1)
        logits = DecoderRun(session).read(_numbers(window), last=False)
        exported = torch.from_numpy(logits).double().log_softmax(-1)
        divergence += (reference.exp() * (reference - exported)).sum(-1).tolist()
        lost += (reference - exported)[:-1].gather(-1, window[1:, None])[:, 0].tolist()
        same += (reference.argmax(-1) == exported.argmax(-1)).double().tolist()
    most_divergence, most_ratio = (
        (FP32_DIVERGENCE, FP32_RATIO) if precision == "fp32" else (INT8_DIVERGENCE, INT8_RATIO)
    )
    return TextExportCheck(
        tokens=len(divergence),
        divergence=_finite(np.mean(divergence)),
        divergence_allowed=most_divergence,
        perplexity_ratio=_finite(np.exp(np.mean(lost))),
        perplexity_ratio_allowed=most_ratio,
        agreement=float(np.mean(same)),
    )


def _finite(value: Any) -> float:
    return float(value) if np.isfinite(value) else float(np.finfo(np.float64).max)


def _numbers(window: Tensor) -> Tokens:
    found: Tokens = window.numpy()
    return found


def _stops(model: nn.Module) -> tuple[int, ...]:
    settings: Any = getattr(model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    return tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),)
