"""One decoder under atheris, in a process of its own: libFuzzer ends its process when it is done."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["personalization", "strategies"], enable_loader_override=False):
    from benchmarks.fuzz.wire import grouped_decoders


def main(name: str, corpus: Path, *options: str) -> None:
    """Fuzz one decoder; options are libFuzzer's. Does not return."""
    decoder = grouped_decoders()[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(decoder.valid):
        (corpus / f"valid-{number}").write_bytes(raw)

    def one_input(raw: bytes) -> None:
        try:
            decoder.call(raw)
        except decoder.allowed:
            return

    atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
