"""The untouched backbone on the server, and what of it a node still needs."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from personalization.data.tasks import check_task
from personalization.model_files.backbone import Backbone, load_backbone
from personalization.model_files.pieces import make_manifest, split_backbone
from personalization.system.bounded_cache import BoundedCache
from personalization.transformer.groups import unit_groups
from personalization.transformer.layers import find_layers
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from server.data_free import group_folds
from strategies.protocol import MANIFEST, PIECES, PLAN, pieces_record, plan_record

Flags = NDArray[np.bool_]
# Bytes of transfers that are kept for further nodes.
_ROOM = 2**29


class GenericBackbone:
    """The pieces of the backbone by hash, and the transfers that bring a node up to a plan.

    The dense pieces are kept whatever the fleet drops, so that a group can be restored. `layout` is that of the
    statistics vectors for `levels` probe levels.
    """

    def __init__(self, model: PreTrainedModel, description: Mapping[str, Any], levels: int) -> None:
        """Split `model` (float32, in evaluation mode) into pieces. Raises UserError for models not understood.

        description: what devices must know about it beside its config, see `BackboneManifest`.
        """
        self.model, self.description = model, description
        self.layers = find_layers(model)
        self.groups = unit_groups(model, self.layers)
        self.pieces = split_backbone(model, self.layers, self.groups)
        self.manifest = make_manifest(model, description, self.groups, self.pieces)
        self.root = self.manifest.root
        self.layout = StatisticsLayout(len(self.layers), levels, self.manifest.group_count)
        self._transfers = BoundedCache[ArrayRecord](_ROOM)
        self._lock = threading.Lock()

    def units(self, flags: Flags) -> int:
        """Return the number of units in the groups that are set in `flags` [groups]."""
        sizes = np.array([len(group) for groups in self.groups for group in groups])
        return int(sizes[flags].sum())

    def request(self, plan: Plan, lacking: Flags | None) -> RecordDict:
        """Return what a node is sent: the plan, and what it needs for it.

        lacking [groups]: the groups without which the node is believed to be; None if it is believed to have nothing.
        A node that has nothing gets the generic backbone: everything but the dropped groups. A node that lacks a
        group which the plan no longer drops gets that group.
        """
        content = RecordDict({PLAN: plan_record(plan, self.layout, self.root)})
        if lacking is None:
            content[MANIFEST] = ConfigRecord(self.manifest.to_record())
            content[PIECES] = self._pieces(send=~plan.dropped, lacking=plan.dropped, base=True)
        elif (lacking & ~plan.dropped).any():
            content[PIECES] = self._pieces(send=lacking & ~plan.dropped, lacking=lacking & plan.dropped, base=False)
        return content

    def lacking_after(self, plan: Plan, lacking: Flags | None) -> Flags:
        """Return what a node lacks once it has answered a request."""
        return plan.dropped.copy() if lacking is None else lacking & plan.dropped

    def _pieces(self, *, send: Flags, lacking: Flags, base: bool) -> ArrayRecord:
        key = bytes([base]) + np.packbits(send).tobytes() + np.packbits(lacking).tobytes()
        wanted = [base] * len(self.manifest.base) + list(send)
        sent = {str(i): piece for i, piece in enumerate(self.pieces.values()) if wanted[i]}
        size = sum(piece.nbytes for piece in sent.values())
        with self._lock:
            return self._transfers.get(key, size, lambda: pieces_record(sent | self._folds(lacking)))

    def _folds(self, lacking: Flags) -> dict[str, Tensor]:
        folds = group_folds(self.model, self.layers, self.groups, lacking)
        return {f"fold.{layer}": fold for layer, fold in folds.items()}


def load_generic_backbone(
    model: str, levels: int, *, load: Callable[[str], Backbone] = load_backbone
) -> GenericBackbone:
    """Return the backbone of a fleet from a folder or a hub name, for `levels` probe levels.

    load: what reads it, for who has it in memory already. What its inputs have to look like comes along, and with a
    language model its tokenizer: a device needs nothing else. Raises UserError, also for a model that
    devices could not give their data to.
    """
    loaded = load(model)
    preprocessing = check_task(loaded.preprocessing, loaded.labels, wanted=None, model=model)
    description = {
        "identifier": loaded.identifier,
        "labels": list(loaded.labels),
        "preprocessing": preprocessing.to_dict(),
    }
    return GenericBackbone(loaded.model, description, levels)
