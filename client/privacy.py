"""A device's own ledger: what an answer costs is worked out here, and nothing is answered that the budget forbids."""

from dataclasses import dataclass

from client.data import Config
from client.entries import LEDGER, VAULT
from client.node_file import EPSILON_BUDGET
from client.state import ClientState
from personalization.errors import UserError
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.privacy_terms import PrivacyTerms
from personalization.wire.statistics import StatisticsLayout
from strategies.privacy.ledger import LEDGER_DELTA, Ledger, LedgerError
from strategies.privacy.mechanism import answer_cost
from strategies.privacy.release import released_entries
from strategies.secure_aggregation.messages import Invitation
from strategies.secure_protocol import SecureRequest, Step


@dataclass(frozen=True)
class Charge:
    """What an answer costs, known before any work is done. ledger: as it will stand once the answer leaves."""

    ledger: Ledger | None

    def changes(self) -> dict[str, bytes]:
        """Return what has to be stored before the answer leaves, or together with its mask."""
        return {} if self.ledger is None else {LEDGER: self.ledger.to_bytes()}


def admit(
    plan: Plan,
    layout: StatisticsLayout,
    request: SecureRequest | None,
    *,
    digest: bytes,
    state: ClientState,
    node_config: Config,
) -> Charge:
    """Return the charge for answering `plan`. digest: of the plan.

    What the server says of noise counts for nothing but what follows from it: how much this device adds itself, for the
    cohort that the invitation announces, or the noise that the server vouches for. The same plan answered again in the
    open costs nothing, because the same vector is sent. The ledger is kept whether or not there is a budget.
    Raises ClientError (budget spent, request invalid, ledger damaged or lost).
    """
    if request is not None and request.step is not Step.MASK:
        return Charge(None)  # nothing is released
    budget = _budget(node_config)
    if plan.privacy is None:
        if budget is not None:
            raise _spent(f"the plan asks for statistics without noise, and this device spends {budget:g} at most")
        return Charge(None)
    if not plan.privacy.release:
        return Charge(None)
    cost = _cost(plan.privacy, layout, request)
    ledger, text = read_ledger(state), digest.hex()
    if budget is not None and not ledger.answers and state.vault is not None and state.vault.began_anew:
        raise _forgotten(state)
    if request is None and ledger.last == text:
        return Charge(None)
    if budget is not None and not ledger.affords(cost, budget):
        after = ledger.charged(cost, text).epsilon
        raise _spent(
            f"{ledger.answers} answers have cost epsilon {ledger.epsilon:.2f} (delta {LEDGER_DELTA:g}); this one would "
            f"make it {after:.2f}, and this device spends {budget:g} at most"
        )
    return Charge(ledger.charged(cost, text))


def read_ledger(state: ClientState) -> Ledger:
    """Return the ledger in a state, an empty one if there is none. Raises ClientError if it is damaged."""
    try:
        return Ledger.from_bytes(state.read(LEDGER))
    except LedgerError as error:
        raise _damaged(state) from error
    except FileNotFoundError as error:
        if state.vault is not None and LEDGER in state.vault.names():
            raise _damaged(state) from error
        return Ledger()


def _cost(terms: PrivacyTerms, layout: StatisticsLayout, request: SecureRequest | None) -> float:
    if terms.mode == "distributed" and request is None:
        raise ClientError(ClientFailure.REQUEST_INVALID, "a share of distributed noise is asked for in the open")
    cohort = 1 if request is None else Invitation.decode(request.message).cohort
    try:
        return answer_cost(terms, cohort=cohort, entries=released_entries(layout))
    except UserError as error:
        raise ClientError(ClientFailure.REQUEST_INVALID, str(error)) from error


def _budget(node_config: Config) -> float | None:
    value = node_config.get(EPSILON_BUDGET)
    try:
        return None if value is None else float(value)
    except ValueError as error:
        raise ClientError(ClientFailure.BUDGET_SPENT, f"{EPSILON_BUDGET} {value!r}: expected a number") from error


def _damaged(state: ClientState) -> ClientError:
    return ClientError(
        ClientFailure.STATE_UNWRITABLE,
        f"{state.path(LEDGER)}: damaged, so what this device has spent is unknown; it takes no part until the file is "
        "restored, or removed by who accepts that counting begins anew",
    )


def _forgotten(state: ClientState) -> ClientError:
    return ClientError(
        ClientFailure.STATE_UNWRITABLE,
        f"{state.path(VAULT)}: was lost or replaced by an older copy, and what this device has spent with it; with a "
        "budget it takes no part until this folder and the vault's counter are both removed by who accepts that "
        "counting begins anew",
    )


def _spent(detail: str) -> ClientError:
    return ClientError(ClientFailure.BUDGET_SPENT, detail)
