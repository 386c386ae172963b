import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from personalization.wire.statistics import StatisticsLayout
from server.flower_strategy import REDUCED, StatisticsStrategy
from simulations.engine import run_in_process
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.protocol import reply_content
from strategies.registry import STRATEGIES, make_strategy

LAYOUT = StatisticsLayout(layers=2, levels=1, groups=3)


def run_flower(answer, strategy, *, clients):
    """Two rounds of Flower's own loop over clients that answer with `answer`."""
    client, server, results = ClientApp(), ServerApp(), []
    client.train()(answer)
    client.evaluate()(answer)

    @server.main()
    def main(grid, context):
        flower = StatisticsStrategy(strategy, LAYOUT)
        results.append(flower.start(grid, ArrayRecord(), num_rounds=2, evaluate_config=ConfigRecord()))

    run_in_process(server, client, clients=clients, run_config={})
    return results[0]


@pytest.mark.parametrize("spec", [*STRATEGIES, "nnm+median", "bucketing+krum", "median+adam", "mean+momentum"])
def test_every_strategy_is_a_strategy_of_flower_and_refuses_what_is_not_finite(spec):
    honest = np.full(LAYOUT.size, 0.25)

    def answer(message, context):
        vector = honest.copy()
        if context.node_config["partition-id"] == 0:
            vector[2] = np.nan
        return Message(reply_content(vector, int(message.metadata.group_id)), reply_to=message)

    result = run_flower(answer, make_strategy(spec), clients=9)
    for number in (1, 2):
        np.testing.assert_allclose(result.train_metrics_clientapp[number][REDUCED], honest, atol=1e-9)


def test_flowers_own_loop_goes_on_when_a_round_is_too_small_for_the_strategy():
    def answer(message, context):
        return Message(reply_content(np.full(LAYOUT.size, 0.5), int(message.metadata.group_id)), reply_to=message)

    result = run_flower(answer, make_strategy("krum:attackers=1"), clients=4)
    assert result.train_metrics_clientapp == {}


def test_flowers_own_loop_reduces_vectors_and_leaves_out_what_is_not_one():
    def answer(message, context):
        number = context.node_config["partition-id"]
        if number == 3:
            return Message(Error(2, "lost"), reply_to=message)
        if number == 4:
            return Message(RecordDict({"x": ConfigRecord({"text": "hello"})}), reply_to=message)
        return Message(
            reply_content(np.full(LAYOUT.size, number / 4), int(message.metadata.group_id)), reply_to=message
        )

    result = run_flower(answer, PrecisionWeightedMean(), clients=5)
    for metrics in (result.train_metrics_clientapp, result.evaluate_metrics_clientapp):
        assert set(metrics) == {1, 2}
        np.testing.assert_allclose(metrics[2][REDUCED], np.full(LAYOUT.size, 0.25))
