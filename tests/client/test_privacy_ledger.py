"""A device's ledger: it outlives restarts, charges what was released, and refuses what its budget forbids."""

from pathlib import Path

import numpy as np
import pytest

from client.node_file import EPSILON_BUDGET
from client.privacy import LEDGER, admit, read_ledger
from client.state import ClientState
from personalization.codes import ClientError, ClientFailure
from personalization.plan import Plan
from personalization.privacy_terms import PrivacyTerms
from personalization.statistics import StatisticsLayout
from strategies.privacy.accounting import epsilon_of, rho_of
from strategies.privacy.mechanism import answer_cost, make_terms
from strategies.secure_aggregation.messages import Invitation
from strategies.secure_protocol import SecureRequest, Step

LAYOUT = StatisticsLayout(4, 2, 4)
RHO = rho_of(1.0, 1e-5)


def plan(terms: PrivacyTerms | None) -> Plan:
    return Plan(version=1, prior=None, dropped=np.zeros(4, bool), probes=2, budget=0.5, privacy=terms)


def invitation(cohort: int = 10, step: Step = Step.MASK) -> SecureRequest:
    message = Invitation(cohort, 1, np.arange(2, 2 + cohort - 1, dtype=np.uint32)).encode()
    return SecureRequest(step=step, fleet="f", series=1, round=1, message=message)


def answer(state, terms, *, digest=b"a", request=None, budget=None):
    config = {} if budget is None else {EPSILON_BUDGET: budget}
    charge = admit(plan(terms), LAYOUT, request, digest=digest, state=state, node_config=config)
    state.change(charge.changes())


def refused(*args, **kwargs) -> ClientFailure:
    with pytest.raises(ClientError) as caught:
        answer(*args, **kwargs)
    return caught.value.code


def test_answers_add_up_over_restarts_until_the_budget_is_spent(tmp_path: Path) -> None:
    terms, cost = make_terms("distributed", clip=0.3, rho=RHO), 0.0
    for number in range(3):
        state = ClientState(tmp_path)
        answer(state, terms, digest=bytes([number]), request=invitation(), budget=1.9)
        cost += answer_cost(terms, cohort=10, entries=LAYOUT.atoms)
        assert read_ledger(ClientState(tmp_path)).rho == pytest.approx(cost)
    assert epsilon_of(cost, 1e-5) <= 1.9
    before = (tmp_path / LEDGER).read_bytes()
    assert refused(ClientState(tmp_path), terms, request=invitation(), budget=1.9) is ClientFailure.BUDGET_SPENT
    assert (tmp_path / LEDGER).read_bytes() == before


def test_the_same_plan_in_the_open_is_charged_once_and_every_masked_answer_is(tmp_path: Path) -> None:
    state, central = ClientState(tmp_path), make_terms("central", clip=0.3, rho=RHO)
    answer(state, central)
    answer(state, central)
    assert read_ledger(state).answers == 1
    answer(state, central, digest=b"b")
    for _ in range(2):
        answer(state, make_terms("distributed", clip=0.3, rho=RHO), request=invitation())
    assert read_ledger(state).answers == 4


def test_without_noise_a_device_with_a_budget_answers_nothing(tmp_path: Path) -> None:
    state = ClientState(tmp_path)
    assert refused(state, None, budget=100.0) is ClientFailure.BUDGET_SPENT
    assert refused(state, None, request=invitation(), budget=100.0) is ClientFailure.BUDGET_SPENT
    answer(state, None, request=invitation(step=Step.WITHHOLD), budget=100.0)
    answer(state, None)
    assert read_ledger(state).answers == 0


@pytest.mark.parametrize("variance", [1, 1000])
def test_a_server_that_says_little_noise_pays_for_it(tmp_path: Path, variance: int) -> None:
    terms = PrivacyTerms(mode="distributed", clip=0.3, variance=variance)
    code = refused(ClientState(tmp_path), terms, request=invitation(), budget=20.0)
    assert code is ClientFailure.BUDGET_SPENT


def test_a_share_is_not_given_away_in_the_open_nor_to_a_sparse_cohort(tmp_path: Path) -> None:
    state, terms = ClientState(tmp_path), make_terms("distributed", clip=0.3, rho=RHO)
    assert refused(state, terms) is ClientFailure.REQUEST_INVALID
    assert refused(state, terms, request=invitation(200)) is ClientFailure.REQUEST_INVALID


def test_a_damaged_ledger_stops_the_device(tmp_path: Path) -> None:
    state, terms = ClientState(tmp_path), make_terms("central", clip=0.3, rho=RHO)
    answer(state, terms)
    for damage in (b"", b"{}", b'{"format": 1, "rho": -1.0, "answers": 0, "last": ""}'):
        (tmp_path / LEDGER).write_bytes(damage)
        assert refused(state, terms, digest=b"b") is ClientFailure.STATE_UNWRITABLE


def test_a_pass_that_asks_for_no_statistics_costs_nothing(tmp_path: Path) -> None:
    state, terms = ClientState(tmp_path), PrivacyTerms(mode="central", clip=0.3, variance=1, release=False)
    answer(state, terms, budget=0.001)
    assert read_ledger(state).answers == 0
