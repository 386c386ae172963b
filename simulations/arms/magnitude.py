"""Zeros where weights are smallest: the same for every client, whose samples count nowhere but in a fitted head."""

from collections.abc import Sequence

from torch import nn

from personalization.transformer.layers import Layer
from personalization.transformer.trace import Inputs
from personalization.unstructured import magnitude
from simulations.arms.zeros import ZerosArm


class Magnitude(ZerosArm):
    """The same share of zeros in every linear module of the blocks."""

    name = "magnitude"
    summary = "zeros where weights are smallest, the same share everywhere; smaller in sparse storage, no faster"

    def prune(self, model: nn.Module, layers: Sequence[Layer], inputs: Inputs, share: float) -> nn.Module:
        """Return the model without its smallest weights; `inputs` decide nothing."""
        del inputs
        return magnitude(model, layers, share)
