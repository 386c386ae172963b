"""Wanda (2306.11695): zeros where a weight times the norm of its input is smallest, on a client's own samples."""

from collections.abc import Sequence

from torch import nn

from personalization.transformer.layers import Layer
from personalization.transformer.trace import Inputs
from personalization.unstructured import wanda
from simulations.arms.zeros import ZerosArm


class Wanda(ZerosArm):
    """Sun et al. 2023 (2306.11695): compared within each output, and calibrated on the client's private batch."""

    name = "wanda"
    summary = "zeros by Wanda on each client's own samples; smaller in sparse storage, no faster"

    def prune(self, model: nn.Module, layers: Sequence[Layer], inputs: Inputs, share: float) -> nn.Module:
        """Return the model with zeros by Wanda's importance on `inputs`."""
        return wanda(model, layers, inputs, share)
