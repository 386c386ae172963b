"""Add up what messages amount to: kinds, fields, devices, and whatever is wrong; the parts sum to the whole."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from personalization.wire.statistics import SCALARS, StatisticsLayout
from simulations.audit.leaves import FRAMING, Decoded, Leaf

STATISTICS, SUM, ENVELOPE, HTTP, FRAME = (
    "sparsity statistics",
    "secure sum",
    "Flower's envelope",
    "HTTP and signatures",
    "field numbers and lengths",
)
GROUPS = (STATISTICS, SUM, ENVELOPE, HTTP, FRAME)
_VECTOR = frozenset({*StatisticsLayout(1, 1, 1).widths, *SCALARS})
_SUM = frozenset(
    {
        "agreement_key",
        "certificate",
        "commitment",
        "epoch",
        "kind",
        "masked_vector",
        "nonce",
        "pair_keys",
        "sealed_shares",
        "self_mask_shares",
        "signature",
    }
)
_WEB = ("request line", "header ", "end of the headers", "cut-off ")


def group_of(leaf: Leaf) -> str:
    """Return which of GROUPS a field belongs to."""
    if leaf.name.startswith(_WEB):
        return HTTP
    if leaf.meaning == FRAMING:
        return FRAME
    last = leaf.name.rpartition(".")[2]
    if leaf.name.startswith(("content.", "object.")) and last in _VECTOR | _SUM:
        return STATISTICS if last in _VECTOR else SUM
    return ENVELOPE


@dataclass
class Count:
    """How many messages, and bytes in them."""

    messages: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.messages += 1
        self.bytes += size


@dataclass
class Tally:
    """What was added so far. problems: where, and what. examples: the first message of each kind."""

    total: Count = field(default_factory=Count)
    kinds: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    clients: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    groups: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    fields: dict[tuple[str, str], Count] = field(default_factory=lambda: defaultdict(Count))
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)

    def add(self, decoded: Decoded) -> None:
        """Count a message."""
        size = len(decoded.raw)
        for count in (self.total, self.kinds[decoded.kind], self.clients[decoded.client]):
            count.add(size)
        for leaf in decoded.leaves:
            self.groups[decoded.kind, group_of(leaf)] += leaf.size
            self.fields[leaf.name, leaf.meaning or "unexplained"].add(leaf.size)
        where = f"{decoded.client}, message {decoded.number} ({decoded.kind})"
        self.problems += [{"where": where, "what": problem} for problem in decoded.problems]
        self.examples.setdefault(decoded.kind, message_record(decoded))

    def to_record(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {
            "messages": self.total.messages,
            "bytes": self.total.bytes,
            "kinds": [{**_row(count, kind=kind), "groups": self._groups(kind)} for kind, count in self.kinds.items()],
            "clients": [_row(count, client=client) for client, count in self.clients.items()],
            "groups": [{"group": name, "bytes": size} for name in GROUPS if (size := self._group(name))],
            "fields": [_row(count, field=name, meaning=meaning) for (name, meaning), count in self.fields.items()],
            "examples": list(self.examples.values()),
        }

    def _groups(self, kind: str) -> dict[str, int]:
        return {group: self.groups[kind, group] for group in GROUPS if (kind, group) in self.groups}

    def _group(self, name: str) -> int:
        return sum(size for (_, group), size in self.groups.items() if group == name)


def message_record(decoded: Decoded) -> dict[str, Any]:
    """Return a message with all its fields as what JSON can hold."""
    return {
        "client": decoded.client,
        "number": decoded.number,
        "kind": decoded.kind,
        "bytes": len(decoded.raw),
        "fields": [
            {"field": leaf.name, "start": leaf.start, "bytes": leaf.size, "meaning": leaf.meaning, "value": leaf.value}
            for leaf in sorted(decoded.leaves, key=lambda leaf: leaf.start)
        ],
        "problems": decoded.problems,
    }


def _row(count: Count, **names: str) -> dict[str, Any]:
    return {**names, "messages": count.messages, "bytes": count.bytes}
