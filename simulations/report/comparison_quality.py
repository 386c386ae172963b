"""How what methods are compared by is written and drawn: accuracy on images, perplexity on text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ComparedQuality:
    """What a comparison's report says of quality.

    metric, dense: its key in a row's metrics, and that of the dense model beside it. kind, difference_kind: how it and
    a difference of it are written (see `format_value`). same: the difference of two that are alike. scale: times what
    is drawn. better: 1 where more is better, -1 where less is. name: of the metric; best: what the best method is.
    axis, difference_axis: of figures. difference_heading: of a column. text, swept_text, target_text: below figures.
    """

    metric: str
    dense: str
    kind: str
    difference_kind: str
    same: float
    scale: float
    better: int
    name: str
    best: str
    axis: str
    difference_axis: str
    difference_heading: str
    text: str
    swept_text: str
    target_text: str

    def gain(self, difference: float) -> float:
        """Return a difference as what was gained, as it is drawn: above 0 is better."""
        return self.scale * self.better * (difference - self.same)

    def difference(self, value: float, reference: float) -> float:
        """Return what `value` is against `reference`: as differences of this metric are written."""
        return value / reference if self.same else value - reference


IMAGES = ComparedQuality(
    metric="personal_accuracy",
    dense="dense_fitted_accuracy",
    kind="share",
    difference_kind="points",
    same=0.0,
    scale=100.0,
    better=1,
    name="accuracy",
    best="the most accurate",
    axis="accuracy (%)",
    difference_axis="points of accuracy",
    difference_heading="difference, points",
    text="Mean over the clients on their own test images, with its 95 % interval. The upright stroke is the worst "
    "tenth of the clients, the grey cross the dense model of the same clients with its head fitted to each.",
    swept_text="Points of accuracy gained (blue) or lost (orange) against {without}, whose column is the accuracy.",
    target_text="The first round in which the sampled clients come within {target} of their dense model with its head "
    "fitted; the mean is over the runs that do. A share beside a mark says how many do, where not all.",
)
TEXT = ComparedQuality(
    metric="perplexity_ratio",
    dense="dense_perplexity",
    kind="ratio",
    difference_kind="factor",
    same=1.0,
    scale=1.0,
    better=-1,
    name="perplexity ratio",
    best="the best",
    axis="perplexity, personal to dense",
    difference_axis="perplexity, times the first's",
    difference_heading="times the first",
    text="Personal to dense perplexity on the clients' own later text, geometric mean over the clients, with its 95 % "
    "interval: 1 has lost nothing, less is better. The upright stroke is the tenth of the clients that lost most.",
    swept_text="Perplexity divided by that at {without}, whose column is the perplexity ratio: below 1 (blue) is "
    "better, above (orange) worse.",
    target_text="The first round in which the sampled clients' perplexity is, on average, at most {target} above that "
    "of the dense model; the mean is over the runs that do. A share beside a mark says how many do, where not all.",
)


def compared_by(summary: Mapping[str, Any]) -> ComparedQuality:
    """Return what the methods of a summary are compared by."""
    return TEXT if summary.get("compared_by") == TEXT.metric else IMAGES
