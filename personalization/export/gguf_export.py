"""Write a language model whose layers are all of one shape as GGUF, the file of llama.cpp; checked by reading it back.

Needs the package gguf of the extra `llm`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.export.decoder import read_decoder
from personalization.export.gguf_layout import add_settings, check_shapes, gguf_tensors
from personalization.export.gguf_tokenizer import TokenizerRecord, read_tokenizer
from personalization.model_files.source_model import SourceModel
from personalization.system.extras import install
from personalization.system.files import temporary_beside

if TYPE_CHECKING:
    from gguf import GGUFWriter

GgufPrecision = Literal["fp32", "int8"]
# Numbers that share a scale in GGUF's type Q8_0; a matrix whose rows they do not divide is stored in half precision.
_BLOCK = 32
# Of a tensor's largest number: half of a step of int8 and what its scale in half precision adds; rounding to half.
_ALLOWED = {"F32": 0.0, "F16": 2.0**-11, "Q8_0": 0.5 / 127 + 2.0**-10}


@dataclass(frozen=True, kw_only=True)
class GgufRecord:
    """What was written. difference: the largest between a weight and what is read back, as a share of its matrix's
    largest weight.
    """

    file: str
    precision: GgufPrecision
    bytes: int
    tensors: int
    difference: float


def export_gguf(source: SourceModel, out: Path, *, precision: GgufPrecision) -> GgufRecord:
    """Write the language model `source` to the file `out`, which is there whole or not at all.

    Raises UserError for a model that GGUF has no place for: layers of several shapes, a tokenizer without a name there.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise UserError(f"gguf: not installed, and --format gguf needs it; {install('llm')}") from error
    if out.is_dir():
        raise UserError(f"{out}: a folder; expected the name of a file, such as {out / 'model.gguf'}")
    if not isinstance(source.preprocessing, TextPreprocessing):
        raise UserError(
            f"{source.name}: not a language model with its tokenizer.json; GGUF holds those, images go with ONNX"
        )
    decoder = read_decoder(source.model)
    check_shapes(decoder)
    tensors = dict(gguf_tensors(decoder))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(out) as temporary:
            writer = gguf.GGUFWriter(temporary, decoder.family)
            add_settings(writer, decoder)
            _add_tokenizer(writer, read_tokenizer(source.preprocessing, len(decoder.embedding)), source.preprocessing)
            for name, values in tensors.items():
                kind = gguf.GGMLQuantizationType[_kind(values, precision)]
                writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            difference = read_back(temporary, tensors)
            size = temporary.stat().st_size
    except OSError as error:
        raise UserError(f"{out}: the export was not saved ({error.strerror or error}); an older one is kept") from None
    return GgufRecord(file=str(out), precision=precision, bytes=size, tensors=len(tensors), difference=difference)


def read_back(path: Path, tensors: dict[str, NDArray[np.float32]]) -> float:
    """Return the largest difference between `tensors` and those in a file, as a share of a tensor's largest number.

    Raises UserError if the file holds others, or a number is further away than its type explains.
    """
    import gguf

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    if found.keys() != tensors.keys():
        raise UserError(f"{path}: holds other tensors than were written; export the model again")
    worst = 0.0
    for name, values in tensors.items():
        read = gguf.dequantize(found[name].data, found[name].tensor_type).reshape(values.shape)
        away = float(np.abs(read - values).max(initial=0.0)) / max(float(np.abs(values).max(initial=0.0)), 1e-30)
        if not away <= _ALLOWED[found[name].tensor_type.name]:
            raise UserError(f"{path}: {name} is not what was written; export the model again")
        worst = max(worst, away)
    return worst


def _kind(values: NDArray[np.float32], precision: GgufPrecision) -> str:
    if precision == "fp32" or values.ndim == 1:
        return "F32"
    return "F16" if values.shape[-1] % _BLOCK else "Q8_0"


def _add_tokenizer(writer: "GGUFWriter", record: TokenizerRecord, preprocessing: TextPreprocessing) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(record.name)
    writer.add_token_list(list(record.tokens))
    writer.add_token_types(list(record.kinds))
    writer.add_token_merges(list(record.merges))
    if preprocessing.separator is not None:
        writer.add_eos_token_id(preprocessing.separator)
    writer.add_add_bos_token(False)
