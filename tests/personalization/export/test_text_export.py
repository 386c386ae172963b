import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import FAMILIES, tiny_language_model, write_language_model
from tiny_text_export import preprocessing, save_tiny_speaker, write_text

from personalization.device import DEVICE_MANIFEST
from personalization.device.manifest import DeviceText, read_device_manifest
from personalization.device.text import DeviceTextModel
from personalization.errors import UserError
from personalization.export import export_model, text_export
from personalization.export.export_model import export_folder
from personalization.export.text_export import compare_text, language_graph
from personalization.model_files.source_model import SourceModel, read_source_model
from personalization.model_files.storage import load_personal_model
from personalization.prediction.continuation import Generation
from personalization.prediction.generation import TextPrediction

GREEDY = Generation(tokens=12)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A footprint takes a process of its own: one test measures it, and the others need not."""
    from personalization.device.footprint import TextFootprint

    def measure(path: Path, tokenizer: Path, *, context: int) -> TextFootprint:
        numbers = dict.fromkeys(("prompt_tokens_per_second", "tokens_per_second"), 1.0)
        counts = dict.fromkeys(("bytes", "tokenizer_bytes", "peak_memory_bytes", "runtime_memory_bytes"), 1)
        return TextFootprint(**numbers, **counts, onnxruntime="1")

    monkeypatch.setattr(export_model, "measure_text_footprint", measure)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "own")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("most", [None, 280])
def test_an_export_speaks_and_scores_as_torch_does(family: str, most: int | None, text: Path, tmp_path: Path) -> None:
    personal = save_tiny_speaker(tmp_path / "personal", family=family, vocabulary=most)
    manifest = export_folder(personal, text, tmp_path / "out", precision="fp32")
    loaded = load_personal_model(personal)
    assert read_device_manifest(tmp_path / "out") == manifest
    assert manifest.personal == loaded.manifest.weights_sha256
    assert manifest.labels == ()
    assert manifest.check.passed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {DEVICE_MANIFEST} | manifest.files
    ours, theirs = DeviceTextModel(tmp_path / "out"), TextPrediction(SourceModel.personal(loaded, "here"))
    for prompt in ("the river", "union"):
        assert ours.generate(prompt, GREEDY) == theirs.generate(prompt, GREEDY)
    file = text / "1.txt"
    scored, expected = ours.score(file), theirs.score(file)
    assert scored.keys() == expected.keys()
    for key in ("nats", "bits_per_token", "bits_per_byte", "perplexity"):
        assert scored[key] == pytest.approx(expected[key], rel=1e-4)
    assert scored["tokens"] == expected["tokens"]


def test_a_dense_model_is_exported_from_its_folder_and_measured(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    dense = write_language_model(tmp_path / "dense")
    manifest = export_folder(dense, text, tmp_path / "out", precision="int8-dynamic")
    footprint = manifest.footprint
    assert footprint.bytes == (tmp_path / "out" / manifest.model_file).stat().st_size
    assert isinstance(manifest.preprocessing, DeviceText)
    tokenizer = (tmp_path / "out" / manifest.preprocessing.tokenizer_file).read_bytes()
    assert footprint.tokenizer_bytes == len(tokenizer)
    assert manifest.preprocessing.tokenizer_sha256 == hashlib.sha256(tokenizer).hexdigest()
    assert footprint.prompt_tokens_per_second > footprint.tokens_per_second > 0
    assert 1 << 20 < footprint.runtime_memory_bytes <= footprint.peak_memory_bytes
    assert 0 < manifest.check.divergence <= manifest.check.divergence_allowed
    assert DeviceTextModel(tmp_path / "out").generate("the river", GREEDY)


def test_the_next_export_takes_the_place_of_the_old_one(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export_folder(save_tiny_speaker(tmp_path / "a"), text, out, precision="fp32")
    second = export_folder(save_tiny_speaker(tmp_path / "b", vocabulary=280), text, out, precision="fp32")
    assert not first.files & second.files
    assert {path.name for path in out.iterdir()} == {DEVICE_MANIFEST} | second.files


def test_an_export_that_is_too_far_is_refused_and_the_old_one_stays(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, personal = tmp_path / "out", save_tiny_speaker(tmp_path / "personal")
    export_folder(personal, text, out, precision="fp32")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(text_export, "INT8_DIVERGENCE", 0.0)
    with pytest.raises(UserError, match=r"nats a token \(0 allowed\)"):
        export_folder(personal, text, out, precision="int8-dynamic")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_cannot_be_exported_is_one_line(text: Path, tmp_path: Path) -> None:
    personal = save_tiny_speaker(tmp_path / "personal")
    short = tmp_path / "short"
    short.mkdir()
    (short / "a.txt").write_text("the river")
    for data, precision, words in ((text, "int8-static", "not static"), (short, "fp32", "too little text")):
        with pytest.raises(UserError, match=words):
            export_folder(personal, data, tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


def test_the_check_measures_what_it_says() -> None:
    """Against the same predictions nothing is lost; against those of another model what torch computes."""
    model, other = tiny_language_model("llama"), tiny_language_model("qwen2")
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, 320, (3, 15)))
    own = compare_text(model, language_graph(model, tokens, "fp32"), tokens, "fp32")
    assert own.passed
    assert (own.tokens, own.agreement) == (45, 1.0)
    assert own.perplexity_ratio == pytest.approx(1.0, abs=1e-5)
    check = compare_text(model, language_graph(other, tokens, "fp32"), tokens, "fp32")
    with torch.no_grad():
        p, q = (m(input_ids=tokens).logits.log_softmax(-1) for m in (model, other))
        nats = [m(input_ids=tokens, labels=tokens).loss for m in (model, other)]
    assert check.divergence == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert check.perplexity_ratio == pytest.approx(float((nats[1] - nats[0]).exp()), rel=1e-4)
    assert check.agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()))
    assert not check.passed


def test_a_model_that_says_nothing_finite_is_refused() -> None:
    model, spoiled = tiny_language_model("llama"), tiny_language_model("llama")
    spoiled.model.norm.weight.data[:] = float("nan")
    tokens = torch.zeros(1, 5, dtype=torch.int64)
    check = compare_text(model, language_graph(spoiled, tokens, "fp32"), tokens, "fp32")
    assert not check.passed
    json.loads(json.dumps([check.divergence, check.perplexity_ratio], allow_nan=False))


def test_it_stops_where_the_model_would(text: Path, tmp_path: Path) -> None:
    """After a token that ends a text nothing is added, in torch and on the device alike."""
    personal = save_tiny_speaker(tmp_path / "personal")
    loaded = load_personal_model(personal)
    encoded = preprocessing().encode("the river")
    with torch.no_grad():
        first = int(loaded.model(input_ids=torch.from_numpy(encoded)[None]).logits[0, -1].argmax())
    manifest_file = personal / "manifest.json"
    record = json.loads(manifest_file.read_text())
    record["generation"]["eos_token_id"] = [first]
    manifest_file.write_text(json.dumps(record))
    export_folder(personal, text, tmp_path / "out", precision="fp32")
    ours = DeviceTextModel(tmp_path / "out").generate("the river", GREEDY)
    assert ours == TextPrediction(read_source_model(personal)).generate("the river", GREEDY)
    assert ours == preprocessing().decode([first])
