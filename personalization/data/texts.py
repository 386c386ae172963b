"""Read the text that somebody keeps: a folder of .txt files, .jsonl files, or both.

Text becomes windows of tokens on the device, and only there. A window holds one token more than a model reads, so that
every position has a next token to predict.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT_SUFFIXES = frozenset({".jsonl", ".txt"})
WINDOW_TOKENS = 128
WINDOWS = 16

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class TextPreprocessing:
    """What a language model expects of its text.

    tokenizer: contents of its tokenizer.json. separator: the token between two texts, None if it knows none. context:
    the most tokens that the model reads at a time.
    """

    tokenizer: str
    separator: int | None
    context: int

    def __post_init__(self) -> None:
        """Refuse a context that is none."""
        if self.context < 2:
            raise UserError(f"a context of {self.context} tokens: expected 2 or more")

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"the model's tokenizer.json can't be read ({error}); fetch the model again") from error
        # Some files say where to cut and how to fill up; text here is as long as it is.
        found.no_truncation()
        found.no_padding()
        return found

    @property
    def vocabulary(self) -> int:
        """One more than the largest token."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def added(self) -> frozenset[int]:
        """The tokens that no text is cut into by itself: ends, beginnings, roles."""
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a text [tokens], without special ones around it."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: Sequence[int] | Tokens) -> str:
        """Return the text of tokens, special ones left out."""
        return str(self._tokenizer.decode([int(token) for token in tokens]))

    def spellings(self, tokens: Sequence[int] | Tokens) -> list[str]:
        """Return how the tokenizer spells each of `tokens`; a number that is no token has none."""
        found = (self._tokenizer.id_to_token(int(token)) for token in tokens)
        return [spelling for spelling in found if spelling is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as what JSON can hold."""
        return {"tokenizer": self.tokenizer, "separator": self.separator, "context": self.context}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TextPreprocessing":
        """Return the preprocessing that `to_dict` wrote. Raises UserError if a field is missing or of a wrong type."""
        tokenizer, separator, context = (record.get(key) for key in ("tokenizer", "separator", "context"))
        if isinstance(tokenizer, str) and isinstance(separator, int | None) and isinstance(context, int):
            return cls(tokenizer, separator, context)
        raise UserError("text preprocessing: expected tokenizer, separator and context")


def text_preprocessing(config: Any, tokenizer_file: Path) -> TextPreprocessing:
    """Return what a language model with this transformers config expects, with the tokenizer of its folder.

    Raises UserError if the tokenizer is missing, can't be read, or makes tokens that the model does not have.
    """
    try:
        text = tokenizer_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{tokenizer_file.parent}: no {tokenizer_file.name} that can be read; a language model needs its tokenizer"
        ) from error
    end = config.eos_token_id
    first = end[0] if isinstance(end, list) and end else end
    separator = first if isinstance(first, int) else None
    context = getattr(config, "max_position_embeddings", None) or WINDOW_TOKENS
    try:
        preprocessing = TextPreprocessing(text, separator, int(context))
        vocabulary = preprocessing.vocabulary
    except UserError as error:
        raise UserError(f"{tokenizer_file.parent}: {error}") from error
    if vocabulary > config.vocab_size:
        raise UserError(
            f"{tokenizer_file}: makes {vocabulary:,} tokens, but the model has {config.vocab_size:,}; "
            "expected the tokenizer that belongs to the model"
        )
    if separator is not None and not 0 <= separator < config.vocab_size:
        raise UserError(
            f"{tokenizer_file.parent}: config.json ends texts with token {separator}, but the model has tokens 0 to "
            f"{config.vocab_size - 1:,}; fetch the model again"
        )
    if separator is not None and preprocessing.added and separator not in preprocessing.added:
        raise UserError(
            f"{tokenizer_file}: token {separator} ends texts in config.json, and here is a piece of text "
            f"{preprocessing.spellings([separator])}; expected the tokenizer that belongs to the model"
        )
    return preprocessing


def is_unicode(text: str) -> bool:
    """Say whether a text consists of characters: JSON and command lines can bring halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_files(folder: Path) -> list[Path]:
    """Return the .txt and .jsonl files in `folder`, sorted by name, without hidden ones. Raises UserError if none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of text; expected a folder with .txt or .jsonl files")
    named = [p for p in folder.iterdir() if p.suffix.lower() in TEXT_SUFFIXES and not p.name.startswith(".")]
    files = sorted(p for p in named if p.is_file())
    if not files:
        raise UserError(f"{folder}: no text in it; expected .txt files, or .jsonl files with a text in each line")
    return files


def holds_text(folder: Path) -> bool:
    """Say whether there is a .txt or .jsonl file in `folder`."""
    return folder.is_dir() and any(p.suffix.lower() in TEXT_SUFFIXES and p.name[0] != "." for p in folder.iterdir())


def read_texts(file: Path) -> list[str]:
    """Return the texts of a file: all of a .txt, the `text` of each line of a .jsonl. Raises UserError."""
    try:
        content = read_file(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 (byte {error.start}); convert it, or take it out of the folder") from None
    return list(_lines(content, file)) if file.suffix.lower() == ".jsonl" else [content]


def read_file(file: Path) -> bytes:
    """Return what is in a file of text. Raises UserError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; expected a file of text") from None


def _lines(content: str, file: Path) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            text = record.get("text") if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise UserError(f'{file}, line {number}: no text; expected a JSON object like {{"text": "..."}}')
            if not is_unicode(text):
                raise UserError(
                    f"{file}, line {number}: half of a surrogate pair, which is no character; mend the line"
                )
            yield text


def read_tokens(files: Sequence[Path], preprocessing: TextPreprocessing) -> Tokens:
    """Return the tokens of all texts in `files` one after the other, [tokens], the separator after each text."""
    end = [] if preprocessing.separator is None else [preprocessing.separator]
    parts = [np.append(preprocessing.encode(t), end) for file in files for t in read_texts(file) if t.strip()]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def windows(tokens: Tokens, length: int) -> Tokens:
    """Return windows [windows, length + 1] of `tokens`, `length` apart; each starts with the last token before it.

    What is left over at the end is in none.
    """
    starts = np.arange(max((len(tokens) - 1) // length, 0))
    found: Tokens = tokens[starts[:, None] * length + np.arange(length + 1)].reshape(len(starts), length + 1)
    return found


def spread(found: Tokens, most: int) -> Tokens:
    """Return at most `most` of the windows [windows, length + 1], evenly spread."""
    if len(found) <= most:
        return found
    chosen: Tokens = found[np.linspace(0, len(found) - 1, most).round().astype(int)]
    return chosen


def check_window(length: int, preprocessing: TextPreprocessing) -> None:
    """Raise UserError unless the model can read windows of `length` tokens."""
    if not 2 <= length <= preprocessing.context:
        raise UserError(
            f"windows of {length} tokens: expected 2 to {preprocessing.context}, which is what the model reads"
        )


def read_windows(
    files: Sequence[Path], preprocessing: TextPreprocessing, *, length: int, fewest: int, source: Path
) -> Tokens:
    """Return the windows [windows, length + 1] of `files`. Raises UserError if they hold fewer than `fewest`."""
    check_window(length, preprocessing)
    tokens = read_tokens(files, preprocessing)
    found = windows(tokens, length)
    if len(found) < fewest:
        raise UserError(
            f"{source}: too little text, {len(tokens):,} tokens; expected {fewest * length + 1:,} or more, which are "
            f"{fewest} windows of {length}"
        )
    return found
