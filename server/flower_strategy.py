"""A strategy of ours as a Flower Strategy, for those who drive rounds with `Strategy.start` and their own clients.

It samples and reduces; journal, resume, and the transfer of the backbone are the FleetServer's.
"""

from collections.abc import Iterable
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsError, StatisticsLayout
from server.sampling import sample_nodes
from strategies.base import Strategy, Vector
from strategies.protocol import read_reply

REDUCED = "statistics"


class StatisticsStrategy(FlowerStrategy):
    """Sends `config` to a seeded sample of nodes and reduces the statistics vectors that they answer.

    The reduced vector comes back as the list `statistics` of a MetricRecord. Replies that hold anything but one valid
    vector, for the round as version, are left out.
    """

    def __init__(self, strategy: Strategy, layout: StatisticsLayout, *, fraction: float = 1.0, seed: int = 0) -> None:
        """Wrap `strategy` for vectors of `layout`; each round asks `fraction` of the nodes."""
        self._strategy, self._layout, self._fraction, self._seed = strategy, layout, fraction, seed

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message of `arrays` and `config` for each sampled node."""
        nodes = sorted(grid.get_node_ids())
        sampled = sample_nodes(nodes, fraction=self._fraction, seed=self._seed, round_number=server_round)
        return _messages(sampled, arrays, config, server_round, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return no arrays, and the reduced vector if anybody sent one."""
        return None, self.aggregate_evaluate(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message of `arrays` and `config` for every node."""
        return _messages(sorted(grid.get_node_ids()), arrays, config, server_round, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the reduced vector, None if too few clients for the strategy sent a valid one."""
        vectors = []
        for reply in replies:
            vector = self._vector(reply, server_round)
            if vector is not None:
                vectors.append(vector)
        try:
            self._strategy.check_cohort(len(vectors))
        except UserError as error:
            log(WARNING, "round %d teaches nothing: %s", server_round, error)
            return None
        if not vectors:
            return None
        return MetricRecord({REDUCED: self._strategy(vectors, self._layout).tolist()})

    def summary(self) -> None:
        """Log what is in use."""
        log(INFO, "%s over vectors of %d statistics", self._strategy.spec, self._layout.size)

    def _vector(self, reply: Message, version: int) -> Vector | None:
        if reply.has_error():
            return None
        try:
            return read_reply(reply.content, self._layout, version)
        except StatisticsError as error:
            log(WARNING, "round %d: refused what node %d sent: %s", version, reply.metadata.src_node_id, error)
            return None


def _messages(
    nodes: list[int], arrays: ArrayRecord, config: ConfigRecord, server_round: int, message_type: str
) -> list[Message]:
    content = RecordDict({"arrays": arrays, "config": config})
    return [Message(content, node, message_type, group_id=str(server_round)) for node in nodes]
