"""A device's ledger: it outlives restarts, charges what was released, and refuses what its budget forbids."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from client.adoption import adopt_plain_files
from client.entries import LEDGER, VAULT
from client.node_file import EPSILON_BUDGET
from client.privacy import admit, read_ledger
from client.state import ClientState
from client.vault.access import find_access
from client.vault.keys import create_key_file
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.privacy_terms import PrivacyTerms
from personalization.wire.statistics import StatisticsLayout
from strategies.privacy.accounting import epsilon_of, rho_of
from strategies.privacy.ledger import Ledger
from strategies.privacy.mechanism import answer_cost, make_terms
from strategies.secure_aggregation.messages import Invitation
from strategies.secure_protocol import SecureRequest, Step

LAYOUT = StatisticsLayout(4, 2, 4)
RHO = rho_of(1.0, 1e-5)


# Two answers in the open cost epsilon 1.46, three 1.82.
ENOUGH_FOR_TWO = 1.5


class Kept:
    """A device's state with a key outside it; every call opens it as a process that has just started does."""

    def __init__(self, folder: Path, *, counter: bool = True) -> None:
        self.folder, self.key = folder / "state", folder / "key"
        create_key_file(self.key)
        self._own = {"vault-key-file": str(self.key)} if counter else {}
        self._environment = {} if counter else {"FEDSIEVE_VAULT_KEY": self.key.read_text()}

    def state(self) -> ClientState:
        return ClientState(self.folder, access=find_access(self._own, self._environment))

    def answer(self, digest: bytes) -> None:
        answer(self.state(), make_terms("central", clip=0.3, rho=RHO), digest=digest, budget=ENOUGH_FOR_TWO)

    def refused(self, digest: bytes) -> ClientFailure:
        with pytest.raises(ClientError) as caught:
            self.answer(digest)
        return caught.value.code

    def ledger_file(self) -> Path:
        vault = self.state().vault
        assert vault is not None
        return self.folder / VAULT / vault._index.entries[LEDGER].file


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


def test_in_a_vault_it_is_sealed_outlives_restarts_and_refuses_beyond_the_budget(tmp_path: Path) -> None:
    device = Kept(tmp_path)
    for digest in (b"a", b"b"):
        device.answer(digest)
    assert device.refused(b"c") is ClientFailure.BUDGET_SPENT
    ledger = read_ledger(device.state())
    assert ledger.answers == 2
    assert ledger.epsilon <= ENOUGH_FOR_TWO
    assert not (device.folder / LEDGER).exists()
    assert not any(b'"rho"' in path.read_bytes() for path in device.folder.rglob("*") if path.is_file())
    device.answer(b"b")
    assert read_ledger(device.state()) == ledger


def test_an_older_file_put_in_its_place_stops_the_device(tmp_path: Path) -> None:
    device = Kept(tmp_path)
    device.answer(b"a")
    older = device.ledger_file().read_bytes()
    device.answer(b"b")
    device.ledger_file().write_bytes(older)
    assert device.refused(b"c") is ClientFailure.STATE_UNWRITABLE
    device.ledger_file().unlink()
    assert device.refused(b"c") is ClientFailure.STATE_UNWRITABLE


def test_a_plain_file_beside_the_vault_counts_for_nothing(tmp_path: Path) -> None:
    device = Kept(tmp_path)
    for digest in (b"a", b"b"):
        device.answer(digest)
    (device.folder / LEDGER).write_bytes(Ledger().to_bytes())
    assert device.refused(b"c") is ClientFailure.BUDGET_SPENT


def test_an_older_copy_of_the_whole_state_gives_no_budget_back(tmp_path: Path) -> None:
    device = Kept(tmp_path)
    device.answer(b"a")
    shutil.copytree(device.folder, tmp_path / "then")
    device.answer(b"b")
    shutil.rmtree(device.folder)
    shutil.copytree(tmp_path / "then", device.folder)
    assert device.refused(b"c") is ClientFailure.STATE_UNWRITABLE
    device.state().write("version.json", b"{}")  # a vault that goes on does not forget what happened to it
    assert device.refused(b"c") is ClientFailure.STATE_UNWRITABLE
    device.state().change_key()
    assert device.refused(b"c") is ClientFailure.STATE_UNWRITABLE


def test_a_state_that_is_gone_gives_no_budget_back_until_the_counter_is_removed_too(tmp_path: Path) -> None:
    device = Kept(tmp_path)
    device.answer(b"a")
    shutil.rmtree(device.folder)
    assert device.refused(b"b") is ClientFailure.STATE_UNWRITABLE
    shutil.rmtree(device.folder)
    device.key.with_name("key.counter").unlink()
    device.answer(b"b")


def test_without_a_counter_an_older_copy_of_the_whole_state_cannot_be_told(tmp_path: Path) -> None:
    """What is not protected, as docs/privacy_differential.md says."""
    device = Kept(tmp_path, counter=False)
    device.answer(b"a")
    shutil.copytree(device.folder, tmp_path / "then")
    device.answer(b"b")
    shutil.rmtree(device.folder)
    shutil.copytree(tmp_path / "then", device.folder)
    device.answer(b"c")
    assert read_ledger(device.state()).answers == 2


def test_a_device_that_gets_a_key_keeps_what_it_has_spent(tmp_path: Path) -> None:
    plain = ClientState(tmp_path / "state")
    for digest in (b"a", b"b"):
        answer(plain, make_terms("central", clip=0.3, rho=RHO), digest=digest)
    device = Kept(tmp_path)
    vault = device.state().vault
    assert vault is not None
    adopt_plain_files(device.folder, vault)
    assert not (device.folder / LEDGER).exists()
    assert device.refused(b"c") is ClientFailure.BUDGET_SPENT
