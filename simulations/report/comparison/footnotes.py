"""What has to be said of some reference arms wherever they are named: a mark behind the name and its meaning."""

from collections.abc import Iterable
from dataclasses import dataclass

ARM_PREFIX = "arm:"


@dataclass(frozen=True, kw_only=True)
class Footnote:
    """mark: behind the names of `arms`. brief: what it stands for, for a picture; text: in a sentence, after names."""

    mark: str
    arms: tuple[str, ...]
    brief: str
    text: str

    def sentence(self) -> str:
        """Return the mark, the arms and what is to be known of them."""
        return f"{self.mark} {' and '.join(self.arms)} {self.text}"


_FOOTNOTES = (
    Footnote(
        mark="†",
        arms=("fedavg", "fedavg-finetune"),
        brief="uses labels, sends weights up",
        text="train on the clients' labels and send weights up, which no strategy does; they stand here to show what "
        "statistics alone cost and save.",
    ),
    Footnote(
        mark="‡",
        arms=("magnitude", "wanda"),
        brief="zeros: sparse size, dense speed",
        text="set single weights to zero, which alone is not faster: every product is computed as in the dense model, "
        "in its time and its memory. Their size is that of sparse storage.",
    ),
)


def mark_of(method: str) -> str:
    """Return the mark behind the name of a method (`arm:` and an arm, or a strategy), or nothing."""
    return next((note.mark for note in _FOOTNOTES if _is_about(note, method)), "")


def footnotes(methods: Iterable[str]) -> list[Footnote]:
    """Return the notes that belong to any of `methods`."""
    named = list(methods)
    return [note for note in _FOOTNOTES if any(_is_about(note, method) for method in named)]


def _is_about(note: Footnote, method: str) -> bool:
    return method in {f"{ARM_PREFIX}{arm}" for arm in note.arms}
