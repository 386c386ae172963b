"""Weights averaged with Flower's own FedAvg, over clients in this process."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from server.exchange import message_bytes
from server.sampling import sample_nodes
from simulations.arms.base import World
from simulations.arms.training import Weights
from simulations.engine import node_id, run_in_process

# What a client does with the weights that it is sent: client, weights, configuration of the round; returns its own.
LocalWork = Callable[[int, Weights, ConfigRecord], Weights]


class CountedFedAvg(FedAvg):
    """Flower's FedAvg (McMahan et al. 2017, 1602.05629), but for who is asked and in which order it sums.

    Its own draw comes from Python's global generator; here a round asks the nodes that a round of the service asks,
    and replies are averaged in the order of their nodes. Counts the bytes of all messages by node.
    """

    def __init__(self, nodes: Sequence[int], *, fraction: float, seed: int) -> None:
        """Take the nodes to draw from, and the share of them that a round asks."""
        super().__init__(fraction_train=fraction, fraction_evaluate=0.0)
        self._nodes, self._fraction, self._seed = list(nodes), fraction, seed
        self._sent: list[Message] = []
        self.uplink_bytes: Counter[int] = Counter()
        self.downlink_bytes: Counter[int] = Counter()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message of `arrays` and `config` for each node of this round's sample."""
        nodes = sample_nodes(self._nodes, fraction=self._fraction, seed=self._seed, round_number=server_round)
        content = RecordDict(
            {
                self.arrayrecord_key: arrays,
                self.configrecord_key: ConfigRecord({**config, "server-round": server_round}),
            }
        )
        self._sent = [Message(content, node, MessageType.TRAIN, group_id=str(server_round)) for node in nodes]
        return self._sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Count what has travelled, then average as FedAvg does."""
        ordered = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        for message in self._sent:
            self.downlink_bytes[message.metadata.dst_node_id] += message_bytes(message)
        for reply in ordered:
            self.uplink_bytes[reply.metadata.src_node_id] += message_bytes(reply)
        return super().aggregate_train(server_round, ordered)


class Averaging:
    """Rounds of averaging over the honest clients of a world; `uplink` and `downlink` are bytes by client so far."""

    def __init__(self, world: World, *, seed: int) -> None:
        """Take the clients. seed: of who is asked in each round."""
        self._world, self._seed = world, seed
        self.uplink: Counter[int] = Counter()
        self.downlink: Counter[int] = Counter()

    def rounds(
        self,
        weights: Weights,
        work: LocalWork,
        *,
        clients: Sequence[int],
        rounds: int,
        fraction: float,
        config: ConfigRecord | None = None,
    ) -> Weights:
        """Return the average after `rounds` rounds that begin with `weights` and ask `fraction` of `clients`.

        work: what each client does in a round. config: sent along. Clients weigh by their number of samples.
        """
        if not rounds:
            return weights
        found: list[ArrayRecord] = []
        server = ServerApp()

        @server.main()
        def main(grid: Grid, _: Context) -> None:
            with _quiet_flower():
                strategy = CountedFedAvg([node_id(c) for c in clients], fraction=fraction, seed=self._seed)
                start = ArrayRecord(dict(weights))
                result = strategy.start(grid, start, num_rounds=rounds, train_config=config or ConfigRecord())
            found.append(result.arrays)
            for client in clients:
                self.uplink[client] += strategy.uplink_bytes[node_id(client)]
                self.downlink[client] += strategy.downlink_bytes[node_id(client)]

        run_in_process(server, self._client_app(work), clients=self._world.data.clients, run_config={})
        return dict(found[0].to_torch_state_dict())

    def hand_out(self, weights: Weights, clients: Sequence[int]) -> None:
        """Count what it takes to send `weights` to each of `clients` once more, in a message of Flower's."""
        record = RecordDict({"arrays": ArrayRecord(dict(weights)), "config": ConfigRecord()})
        server = ServerApp()

        @server.main()
        def main(_grid: Grid, _context: Context) -> None:
            for client in clients:
                self.downlink[client] += message_bytes(Message(record, node_id(client), MessageType.EVALUATE))

        run_in_process(server, ClientApp(), clients=len(clients), run_config={})

    def _client_app(self, work: LocalWork) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            client = int(context.node_config["partition-id"])
            weights = dict(message.content.array_records["arrays"].to_torch_state_dict())
            own = work(client, weights, message.content.config_records["config"])
            count = MetricRecord({"num-examples": self._world.samples(client).count})
            return Message(RecordDict({"arrays": ArrayRecord(dict(own)), "metrics": count}), reply_to=message)

        return app


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Keep what Flower's own loop logs about every round off the terminal while it runs."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
