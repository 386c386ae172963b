"""How good a model is, by task: which figures of a client's row say it, and how they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Quality:
    """What stands for quality in a report.

    dense, personal: keys of a client's row that are drawn against each other; dense_name: of the dense model there.
    kind: how they are written; scale: times what they are drawn; sign: 1 where more is better, -1 where less is.
    heading, text, axis: of the figure. columns: heading, key and kind of what the tables show of each client. what: the
    quantity in a phrase.
    """

    dense: str
    personal: str
    dense_name: str
    kind: str
    scale: float
    sign: int
    what: str
    heading: str
    text: str
    axis: str
    columns: tuple[tuple[str, str, str], ...]

    def change(self, client: Mapping[str, Any]) -> float:
        """Return how much a client's personal model is better than what it is drawn against."""
        return float(self.sign * (client[self.personal] - client[self.dense]))


IMAGES = Quality(
    dense="dense_fitted_accuracy",
    personal="personal_accuracy",
    # What a personal model is drawn against: the dense model whose head knows as much about the client's classes.
    dense_name="dense, head fitted",
    kind="share",
    scale=100.0,
    sign=1,
    what="accuracy",
    heading="Accuracy against size",
    text="Each line leads from the dense model to the model that a client cut for itself. Accuracy is measured on the "
    "client's own test images, which nobody saw during personalization. Further left is smaller; a level line "
    "has lost nothing.",
    axis="accuracy on own test images (%)",
    columns=(
        ("dense", "dense_accuracy", "share"),
        ("fitted", "dense_fitted_accuracy", "share"),
        ("personal", "personal_accuracy", "share"),
    ),
)
TEXT = Quality(
    dense="dense_bits_per_token",
    personal="personal_bits_per_token",
    dense_name="dense",
    kind="bits",
    scale=1.0,
    sign=-1,
    what="bits per token",
    heading="Bits per token against size",
    text="Each line leads from the dense model to the model that a client cut for itself. Bits are what a token of the "
    "client's own later text costs, which nobody saw during personalization; fewer are better. Further left is "
    "smaller; a level line has lost nothing.",
    axis="bits per token of own later text",
    columns=(
        ("dense ppl", "dense_perplexity", "perplexity"),
        ("personal ppl", "personal_perplexity", "perplexity"),
        ("ratio", "perplexity_ratio", "ratio"),
    ),
)


def quality_of(report: Mapping[str, Any]) -> Quality:
    """Return what stands for quality in a report.json."""
    return TEXT if "perplexity_ratio_mean" in report["summary"] else IMAGES
