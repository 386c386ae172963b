"""What methods are compared by and how it is written: accuracy on images, perplexity on text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ComparedQuality:
    """What the methods of a comparison are compared by.

    metric, dense: its key in a row's metrics, and that of the dense model beside it. name: for people; axis: of
    figures. ratios: whether its values are ratios, of which 1 has lost nothing and less is better, held against each
    other by division; the others are shares, of which more is better, held against each other by subtraction.
    """

    metric: str
    dense: str
    name: str
    axis: str
    ratios: bool

    @property
    def kind(self) -> str:
        """How a value is written (see `format_value`)."""
        return "ratio" if self.ratios else "share"

    @property
    def difference_kind(self) -> str:
        """How a difference is written (see `format_value`)."""
        return "factor" if self.ratios else "points"

    @property
    def difference_heading(self) -> str:
        """Heading of a column of differences from the first method."""
        return "times the first" if self.ratios else "difference, points"

    @property
    def same(self) -> float:
        """The difference of two that are alike."""
        return 1.0 if self.ratios else 0.0

    @property
    def scale(self) -> float:
        """Times what a value is drawn: shares as percent."""
        return 1.0 if self.ratios else 100.0

    @property
    def better(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.ratios else 1

    def gain(self, difference: float) -> float:
        """Return a difference as what was gained, as it is drawn: above 0 is better."""
        return self.scale * self.better * (difference - self.same)

    def difference(self, value: float, reference: float) -> float:
        """Return what `value` is against `reference`: as differences of this metric are written."""
        return value / reference if self.ratios else value - reference


IMAGES = ComparedQuality(
    metric="personal_accuracy", dense="dense_fitted_accuracy", name="accuracy", axis="accuracy (%)", ratios=False
)
TEXT = ComparedQuality(
    metric="perplexity_ratio",
    dense="dense_perplexity",
    name="perplexity ratio",
    axis="perplexity, personal to dense",
    ratios=True,
)


def compared_by(summary: Mapping[str, Any]) -> ComparedQuality:
    """Return what the methods of a summary are compared by."""
    return TEXT if summary.get("compared_by") == TEXT.metric else IMAGES
