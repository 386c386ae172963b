"""The secure sums of a run: who can be summed, in which cohorts, and what is learned from what comes out."""

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from server.backbone import GenericBackbone
from server.enrolment_file import read_enrolment_file
from server.secure_exchange import AskPlans, SecureOutcome, SecureRound
from server.secure_members import SecureMembers
from server.settings import ServerSettings
from server.signing import PlanSigner
from strategies.base import Strategy
from strategies.private_protocol import answer_entries, sum_encoding
from strategies.protocol import PLAN, plan_record
from strategies.secure_aggregation.cohorts import draw_cohorts, reduce_cohorts
from strategies.secure_aggregation.settings import SecureAggregationSettings
from strategies.secure_protocol import SecureRequest, Step
from strategies.signatures import plan_digest


class SecureSums:
    """Sums the vectors of one round after the other."""

    def __init__(self, settings: ServerSettings, *, series: int, signer: PlanSigner | None) -> None:
        """Read who enrols the fleet's clients. Raises UserError if that can't be read or is another fleet."""
        assert settings.enrolment_file is not None
        enrolment = read_enrolment_file(settings.enrolment_file)
        if signer is not None and signer.fleet != enrolment.fleet:
            raise UserError(
                f"{settings.enrolment_file}: of fleet {enrolment.fleet}, and plans are signed for {signer.fleet}; "
                "give both files of one fleet"
            )
        self._settings, self._series, self._signer = settings, series, signer
        epoch = SecureRequest(step=Step.ADVERTISE, fleet=enrolment.fleet, series=series, round=0).epoch
        self._members = SecureMembers(enrolment, epoch)

    def round(
        self, grid: Grid, backbone: GenericBackbone, plan: Plan, nodes: Sequence[int], *, number: int, ask: AskPlans
    ) -> SecureOutcome:
        """Ask `nodes` and return their sums. number: of the round's sums in this run, never used before."""
        one = SecureRound(
            grid=grid,
            members=self._members,
            series=self._series,
            number=number,
            group=str(plan.version),
            deadline=self._settings.deadline,
            settings=SecureAggregationSettings(smallest_cohort=self._settings.smallest_cohort),
            encode=lambda cohort: sum_encoding(plan, backbone.layout, cohort),
            signer=self._signer,
        )
        content = RecordDict({PLAN: plan_record(plan, backbone.layout, backbone.root)})
        if self._signer is not None:
            self._signer.sign(content)
        digest, size = plan_digest(content), answer_entries(plan, backbone.layout)
        return one.run(nodes, plan=digest, entries=size, draw=lambda handles: self._draw(handles, number), ask=ask)

    def withholding(self, nodes: Iterable[int], number: int) -> dict[int, ConfigRecord]:
        """Return for each node the record by which it keeps its vector to itself."""
        fleet = self._members.enrolment.fleet
        record = SecureRequest(step=Step.WITHHOLD, fleet=fleet, series=self._series, round=number).to_record()
        return dict.fromkeys(nodes, record)

    def _draw(self, handles: Sequence[int], number: int) -> list[tuple[int, ...]]:
        if self._settings.secure_aggregation == "sum":
            return [tuple(handles)]
        seed = int(np.random.SeedSequence([self._settings.seed, self._series, number]).generate_state(1)[0])
        return draw_cohorts(handles, size=self._settings.cohort_size, seed=seed)


def reduce_sums(
    found: SecureOutcome, strategy: Strategy, layout: StatisticsLayout, *, quorum: int
) -> NDArray[np.float64] | str:
    """Return what a round's sums come to [statistics], or why nothing is learned from them; quorum: fewest clients."""
    missing = why_nothing(found, quorum)
    if missing is not None:
        return missing
    try:
        return reduce_cohorts(found.totals, strategy, layout)
    except UserError as error:
        return str(error)


def why_nothing(found: SecureOutcome, quorum: int) -> str | None:
    """Return why a round has too few clients in its sums to learn from, None if it has `quorum` of them."""
    if found.clients >= quorum:
        return None
    return found.reasons[0] if found.reasons else f"{found.clients} clients in the sum, {quorum} are needed"
