"""What a client's answer to a plan looks like in the open, with the noise that the plan asks for and without.

Without: the statistics vector. With: its deviations on the grid, clipped, as 16-bit integers; where the plan asks for
no statistics, zeros.
"""

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray

from personalization.wire.plan import Plan
from personalization.wire.privacy_terms import GRID_STEPS
from personalization.wire.statistics import StatisticsError, StatisticsLayout
from strategies.privacy.discrete_gaussian import Integers
from strategies.privacy.noisy_grid import NoisyGrid
from strategies.privacy.postprocessor import Clipping, to_grid
from strategies.privacy.release import released_entries
from strategies.protocol import REPLY_KEYS, STATISTICS, read_reply, reply_content
from strategies.secure_aggregation.encoding import Encoding
from strategies.secure_aggregation.entropy import Entropy, system_entropy
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.settings import SecureAggregationSettings
from strategies.secure_protocol import SecureRequest, check_form

RELEASED_TYPE = np.dtype("<i2")


def answer_entries(plan: Plan, layout: StatisticsLayout) -> int:
    """Return the length of the vector that a client answers a plan with."""
    return layout.size if plan.privacy is None else released_entries(layout)


def make_encoding(
    plan: Plan, layout: StatisticsLayout, cohort: int, *, fraction_bits: int, entropy: Entropy = system_entropy
) -> Encoding:
    """Return how vectors are summed in a secure sum of `cohort` clients that answers `plan`."""
    if plan.privacy is None:
        return FixedPoint(fraction_bits, cohort)
    return NoisyGrid(plan.privacy, cohort, released_entries(layout), entropy)


def sum_encoding(plan: Plan, layout: StatisticsLayout, cohort: int) -> Encoding:
    """Return the same as the server and the guard of a client need it: without anybody's noise."""
    return make_encoding(plan, layout, cohort, fraction_bits=SecureAggregationSettings().fraction_bits)


def check_sum_part(
    request: SecureRequest, message: bytes, plan: Plan | None = None, layout: StatisticsLayout | None = None
) -> None:
    """Return if a reply has the kind and the length that a step of a secure sum leads to; raise StatisticsError if not.

    plan, layout: that the step came with. Raises UserError and MessageError for requests that can't be answered.
    """

    def vector_bytes(cohort: int) -> int:
        if plan is None or layout is None:
            raise MessageError("a step that asks for a vector comes with a plan")
        return sum_encoding(plan, layout, cohort).packed_bytes(answer_entries(plan, layout))

    check_form(request, message, vector_bytes=vector_bytes, settings=SecureAggregationSettings())


def released_content(released: NDArray[np.float64], plan: Plan) -> RecordDict:
    """Return the whole content of a reply with deviations [entries], clipped to the plan's norm."""
    assert plan.privacy is not None
    grid = Clipping().on_client(to_grid(released, plan.privacy), system_entropy)
    return _content(grid, plan.version)


def answer_content(content: RecordDict, layout: StatisticsLayout, plan: Plan) -> RecordDict:
    """Return a reply built anew from the checked vector of `content`. Raises StatisticsError."""
    if plan.privacy is None:
        return reply_content(read_reply(content, layout, plan.version), plan.version)
    return _content(read_released(content, layout, plan), plan.version)


def read_released(content: RecordDict, layout: StatisticsLayout, plan: Plan) -> Integers:
    """Return the vector [entries] on the grid of a reply that holds exactly what may leave. Raises StatisticsError."""
    if set(content) != {STATISTICS} or set(content.config_records) != {STATISTICS}:
        raise StatisticsError("a reply must hold one record of statistics and nothing else", reason="records")
    record = content.config_records[STATISTICS]
    if set(record) != REPLY_KEYS:
        raise StatisticsError("a record of statistics must hold a vector and a version and nothing else", reason="keys")
    raw, entries = record["vector"], released_entries(layout)
    if type(raw) is not bytes or type(record["version"]) is not int:
        raise StatisticsError("the vector must be bytes and the version a whole number", reason="types")
    if record["version"] != plan.version:
        raise StatisticsError("the version must be the plan's", reason="version")
    if len(raw) != entries * RELEASED_TYPE.itemsize:
        raise StatisticsError(f"a vector that is not {entries} integers", reason="length")
    vector = np.frombuffer(raw, dtype=RELEASED_TYPE).astype(np.int64)
    most = GRID_STEPS**2 if plan.privacy is not None and plan.privacy.release else 0
    if int((vector**2).sum()) > most:
        raise StatisticsError("a vector that is longer than it may be", reason="range")
    return vector


def read_answer(content: RecordDict, layout: StatisticsLayout, plan: Plan) -> NDArray[np.float64]:
    """Return the vector of a reply to `plan`; of one with noise the integers. Raises StatisticsError."""
    if plan.privacy is None:
        return read_reply(content, layout, plan.version)
    return read_released(content, layout, plan).astype(np.float64)


def _content(vector: Integers, version: int) -> RecordDict:
    return RecordDict(
        {STATISTICS: ConfigRecord({"vector": vector.astype(RELEASED_TYPE).tobytes(), "version": version})}
    )
