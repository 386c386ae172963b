import math

import pytest
import torch

from personalization.cutting.cut_model import cut_model
from personalization.cutting.masked import Compensation, MaskedModel, MaskedPass
from personalization.errors import UserError
from personalization.prediction.scoring import score_tokens
from personalization.sensing.measurement import DensePredictions, entropy_increase
from personalization.transformer import readout
from personalization.transformer.layers import find_layers
from personalization.transformer.readout import check_head, outputs_of, token_head
from personalization.transformer.trace import trace_dense
from tests.personalization.increases import loss_increase
from tests.tiny_text import FAMILIES, VOCABULARY, tiny_language_model

families = pytest.mark.parametrize("family", FAMILIES)


def tokens(windows=9, length=12):
    return torch.randint(0, VOCABULARY, (windows, length + 1), generator=torch.Generator().manual_seed(1))


@families
def test_the_head_of_what_is_put_out_makes_the_model_s_logits(family):
    model, ids = tiny_language_model(family), tokens()
    with torch.no_grad():
        outputs = outputs_of(model, {"input_ids": ids})
        torch.testing.assert_close(token_head(model)(outputs), model(input_ids=ids).logits)
    assert outputs.shape == (*ids.shape, 36)
    check_head(model, {"input_ids": ids})


def test_a_model_that_changes_logits_behind_its_head_is_refused():
    model = tiny_language_model("llama")
    plain = model.forward

    def capped(*args, **kwargs):
        result = plain(*args, **kwargs)
        result.logits = result.logits.tanh()
        return result

    model.forward = capped
    with pytest.raises(UserError, match="scales or caps its logits"):
        check_head(model, {"input_ids": tokens()})


@families
def test_measurements_are_those_of_whole_logits_however_small_the_chunks(family, monkeypatch):
    model, ids = tiny_language_model(family), tokens()
    layers = find_layers(model)
    trace = trace_dense(model, layers, {"input_ids": ids[:, :-1]})
    everything = torch.ones(len(ids), dtype=torch.bool)
    masked = MaskedModel(trace, Compensation(ridge=0.1, score="residual", fit=everything))
    result = masked.run({layer.index: layer.units // 2 for layer in layers})
    on = torch.arange(len(ids)) % 2 == 0
    with torch.no_grad():
        dense, other = (trace.logits(outputs)[on] for outputs in (trace.outputs, result.outputs))
    labels = ids[:, 1:]
    expected = (
        float(entropy_increase(dense, other).mean()),
        max(float(loss_increase(dense, other, labels[on]).mean()), 0.0),
        float((dense.argmax(-1) == other.argmax(-1)).double().mean()),
    )
    for logits in (VOCABULARY * 5, VOCABULARY, 1):
        monkeypatch.setattr(readout, "CHUNK_LOGITS", logits)
        entropy, loss = (DensePredictions(trace, signal=signal, labels=labels, on=on) for signal in ("entropy", "loss"))
        found = (entropy.increase(result), loss.increase(result), entropy.agreement(result))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@families
def test_no_more_logits_exist_at_a_time_than_a_chunk(family, monkeypatch):
    model, ids = tiny_language_model(family), tokens()
    trace = trace_dense(model, find_layers(model), {"input_ids": ids[:, :-1]})
    monkeypatch.setattr(readout, "CHUNK_LOGITS", VOCABULARY * 4)
    sizes = []
    hook = token_head(model).register_forward_hook(
        lambda _m, _a, out: sizes.append(out.numel() * (out.shape[-1] == VOCABULARY))
    )
    dense = DensePredictions(trace, signal="entropy", labels=None, on=torch.ones(len(ids), dtype=torch.bool))
    dense.increase(MaskedPass(trace.outputs))
    score_tokens(model, ids[:, :-1], ids[:, 1:])
    hook.remove()
    assert max(sizes) == VOCABULARY * 4


@families
def test_a_masked_pass_takes_one_product_with_the_head_for_each_position(family):
    model, ids = tiny_language_model(family), tokens()
    trace = trace_dense(model, find_layers(model), {"input_ids": ids[:, :-1]})
    on = torch.arange(len(ids)) % 2 == 0
    dense = DensePredictions(trace, signal="entropy", labels=None, on=on)
    rows = []
    hook = token_head(model).register_forward_hook(lambda _m, _a, out: rows.append(out.shape[0]))
    dense.increase(MaskedPass(trace.outputs))
    hook.remove()
    assert sum(rows) == int(on.sum()) * (ids.shape[1] - 1)


@families
def test_scores_are_cross_entropies_of_the_next_tokens(family):
    model, ids = tiny_language_model(family), tokens()
    scores = score_tokens(model, ids[:, :-1], ids[:, 1:])
    with torch.no_grad():
        logits = model(input_ids=ids[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert scores.perplexity == pytest.approx(math.exp(float(expected)), rel=1e-5)
    assert scores.bits_per_token == pytest.approx(math.log2(scores.perplexity))
    assert torch.equal(scores.first, logits.argmax(-1))


@families
def test_whole_layers_and_blocks_go_and_embeddings_stay_tied(family):
    model, ids = tiny_language_model(family), tokens()
    layers = find_layers(model)
    assert layers[0].units == 3
    trace = trace_dense(model, layers, {"input_ids": ids})
    everything = torch.ones(len(ids), dtype=torch.bool)
    result = MaskedModel(trace, Compensation(ridge=0.1, score="residual", fit=everything)).run({0: 2, 2: 0, 3: 0})
    writers = {index: (w.weight.clone(), w.bias.clone()) for index, w in result.writers.items()}
    kept = [result.kept.get(layer.index, range(layer.units)) for layer in layers]
    cut = cut_model(model, layers, [torch.tensor(list(units)).numpy() for units in kept], writers)
    with torch.inference_mode():
        torch.testing.assert_close(outputs_of(cut, {"input_ids": ids}), result.outputs, atol=1e-4, rtol=1e-4)
    assert cut.get_input_embeddings().weight is cut.get_output_embeddings().weight is model.lm_head.weight
