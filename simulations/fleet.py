"""Run a simulated fleet from settings to a report: the entry of the command line and of the benchmarks."""

import json
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from client.app import make_app as make_client_app
from client.data import ConfigValue, InputFacts
from client.settings import FIRST_PROBES
from client.state import RECORD
from personalization.backbone import Backbone, load_backbone
from personalization.errors import UserError
from personalization.settings import BudgetKind, PersonalizationSettings, Precision, Recovery, Signal, Solver
from personalization.tasks import TaskName, TextBatch, check_task
from personalization.texts import TextPreprocessing
from server.app import make_app as make_server_app
from server.journal import JOURNAL, Journal, load_journal
from server.sampling import sample_size
from server.settings import SecureMode, ServerSettings, check_secure
from simulations.canaries.texts import with_canary_texts
from simulations.engine import run_in_process
from simulations.evaluation import Evaluator, Judge, client_folder, dense_figures, evaluate_fleet, summarize
from simulations.identities import SimulatedIdentities
from simulations.known_models import model_folder
from simulations.noise import SimulatedNoise
from simulations.partition import PartitionKind
from simulations.privacy_budgets import budget_of, sat_out
from simulations.private_data import FleetData, make_fleet_data
from simulations.recording import recorded
from simulations.speakers import SpeakerData, make_speaker_data
from simulations.text_evaluation import TextEvaluator
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.privacy.mechanism import honest_shares
from strategies.privacy.settings import DpMode, PrivacySettings
from strategies.privacy.words import write_privacy
from strategies.registry import make_strategy

Engine = Literal["in-process", "ray"]
OnRound = Callable[[dict[str, Any]], None]
_PRIVATE_DATA = "simulations.private_data:load"


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """A simulated fleet.

    clients, rounds, fraction: size of the fleet, number of rounds, share of the clients that each round asks.
    partition, classes_per_client, alpha, samples, data: who holds what, see PartitionSettings; data is a path or None
    for the bundled subset; reuse lets clients hold the same images, for fleets larger than the data. budget,
    budget_kind, signal, probes, solver, steps, step_probes, tolerance, recovery, training_steps, adapters,
    training_precision, adapt_head: what each client does, see PersonalizationSettings. final_probes: probes of each
    client in the final pass, which every client takes part in; first_probes: of one that has measured nothing by then,
    where final_probes is 0.
    strategy: how the clients' statistics become one, see docs/strategies.md. secure_aggregation, cohort_size: whether
    the server learns sums alone, see docs/secure_aggregation.md. dp, epsilon, delta, clip: what noise sums get, see
    docs/privacy_differential.md. epsilon_budget: what each client gives away at most, in its life.
    model: folder or hub name; None is the bundled ViT. task: None is the model's. windows, window_tokens: how much text
    makes a client's private batch. vocabulary: how many tokens a client's language model keeps, None for all.
    out: folder of the run. resume: go on with the run in it. record: keep every encoded message of every client for an
    audit. canaries: how many clients get an image of noise, or a sentence of random letters, among their own data,
    which an audit then looks for.
    """

    out: Path
    clients: int = 30
    rounds: int = 3
    fraction: float = 0.3
    partition: PartitionKind = "classes"
    classes_per_client: int = 3
    alpha: float = 0.5
    samples: int = 200
    reuse: bool = False
    budget: float = 0.5
    budget_kind: BudgetKind = PersonalizationSettings.budget_kind
    signal: Signal = "entropy"
    probes: int = PersonalizationSettings.probes
    final_probes: int = 0
    first_probes: int = FIRST_PROBES
    solver: Solver = PersonalizationSettings.solver
    steps: int = PersonalizationSettings.steps
    step_probes: int = PersonalizationSettings.step_probes
    tolerance: float = PersonalizationSettings.tolerance
    recovery: Recovery = PersonalizationSettings.recovery
    training_steps: int = PersonalizationSettings.training_steps
    adapters: int = PersonalizationSettings.adapters
    training_precision: Precision = PersonalizationSettings.training_precision
    adapt_head: bool = PersonalizationSettings.adapt_head
    strategy: str = PrecisionWeightedMean.name
    secure_aggregation: SecureMode = ServerSettings.secure_aggregation
    cohort_size: int = ServerSettings.cohort_size
    dp: DpMode = PrivacySettings.mode
    epsilon: float = PrivacySettings.epsilon
    delta: float = PrivacySettings.delta
    clip: float = PrivacySettings.clip
    epsilon_budget: float | None = None
    seed: int = 0
    data: Path | None = None
    task: TaskName | None = None
    windows: int = TextBatch.windows
    window_tokens: int = TextBatch.tokens
    vocabulary: int | None = None
    model: str | None = None
    engine: Engine = "in-process"
    resume: bool = False
    record: bool = False
    canaries: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense before anything is written. Raises UserError."""
        if self.clients < 1 or self.rounds < 0:
            raise UserError(f"{self.clients} clients, {self.rounds} rounds: expected 1 or more and 0 or more")
        if not 0.0 < self.fraction <= 1.0:
            raise UserError(f"fraction {self.fraction}: expected a share above 0 and at most 1")
        if self.engine not in get_args(Engine):
            raise UserError(f"engine {self.engine!r}: expected one of {', '.join(get_args(Engine))}")
        if self.final_probes < 0 or self.first_probes < 0 or self.seed < 0:
            raise UserError("final probes, first probes and seed: expected 0 or more")
        if self.record and self.engine == "ray":
            raise UserError("--record: under Ray messages never are bytes in one place; leave out --engine ray")
        if self.epsilon_budget is not None and not self.epsilon_budget > 0:
            raise UserError(f"--epsilon-budget {self.epsilon_budget}: expected a number above 0")
        if self.epsilon_budget is not None and self.engine == "ray":
            raise UserError("--epsilon-budget: under Ray a device has no settings of its own; leave out --engine ray")
        if not 0 <= self.canaries <= self.clients:
            raise UserError(f"{self.canaries} canaries: expected 0 to the number of clients, {self.clients}")
        TextBatch(windows=self.windows, tokens=self.window_tokens)
        make_strategy(self.strategy)
        check_secure(self.secure_aggregation, self.cohort_size, self.strategy)
        privacy = PrivacySettings(mode=self.dp, epsilon=self.epsilon, delta=self.delta, clip=self.clip)
        privacy.check_run(strategy=self.strategy, secure=self.secure_aggregation, probes=self.probes)
        PersonalizationSettings(
            budget=self.budget,
            budget_kind=self.budget_kind,
            signal=self.signal,
            probes=self.probes,
            solver=self.solver,
            steps=self.steps,
            step_probes=self.step_probes,
            tolerance=self.tolerance,
            recovery=self.recovery,
            training_steps=self.training_steps,
            adapters=self.adapters,
            training_precision=self.training_precision,
        )

    def run_config(self) -> dict[str, bool | int | float | str]:
        """Return the same as Flower's run configuration: keys with hyphens, absolute paths, no None."""
        own: dict[str, Any] = {key.replace("_", "-"): value for key, value in asdict(self).items()}
        own["num-rounds"], own["out-dir"] = own.pop("rounds"), str(own.pop("out").absolute())
        own["model"] = model_folder(self.model)
        own["task"], own["vocabulary"] = self.task or "", self.vocabulary or 0
        own["data"] = "" if self.data is None else str(self.data.absolute())
        own["min-nodes"] = own.pop("clients")
        if self.dp == "off":
            for key in ("epsilon", "delta", "clip"):
                del own[key]
        own["private-data"] = _PRIVATE_DATA
        del own["record"]  # changes nothing that the run computes
        if self.epsilon_budget is None:
            del own["epsilon-budget"]
        if not self.canaries:
            del own["canaries"]
        return own


@dataclass(frozen=True)
class FleetResult:
    """What `report.json` holds: model, settings, rounds, final (the last pass), clients and summary."""

    model: dict[str, Any]
    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    final: dict[str, Any]
    clients: list[dict[str, Any]]
    summary: dict[str, Any]

    def to_report(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        return asdict(self)


def run_fleet(
    settings: FleetSettings, *, on_round: OnRound | None = None, on_answer: Callable[[], None] | None = None
) -> FleetResult:
    """Run the fleet, evaluate every client's own personal model, and return the report.

    on_round: called after each round, and after the final pass (whose number is rounds + 1), with its record.
    on_answer: called after each answer of a client, but not under Ray. Raises UserError for settings, data or models
    that do not work, and for a folder that holds another run.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    config = settings.run_config()
    backbone = load_backbone(str(config["model"]))
    preprocessing = check_task(
        backbone.preprocessing, backbone.labels, wanted=settings.task, model=str(config["model"])
    )
    facts = InputFacts(preprocessing, backbone.labels)
    data, evaluator = _world(settings, config, backbone, facts)
    clients = data.clients
    config["min-nodes"] = clients
    if settings.canaries and isinstance(data, FleetData):
        config["canary-shape"] = "x".join(map(str, data.dataset.train_images.shape[1:]))
    check_cohort(settings, sample_size(clients, settings.fraction))
    identify = make_identities(settings, config)

    def report_round(record: dict[str, Any]) -> None:
        if on_round is not None:
            on_round(_with_evaluations(record, settings.out, clients))

    noise = SimulatedNoise(settings.seed)
    server_app = make_server_app(config=config, on_round=report_round, noise=noise.server)
    threads = torch.get_num_threads()
    try:
        # One thread: sums in another order differ in their last digits, and clients this small gain little from two.
        torch.set_num_threads(1)
        if settings.engine == "ray":
            from simulations.engine_ray import run_under_ray

            run_under_ray(server_app, make_client_app(config=config, identify=identify, noise=noise), clients=clients)
        else:
            client_app = make_client_app(data, identify=identify, noise=noise)
            with recorded(settings.out if settings.record else None) as tap:
                run_in_process(
                    server_app,
                    client_app,
                    clients=clients,
                    run_config=config,
                    node_config=budget_of(settings.epsilon_budget),
                    on_answer=on_answer,
                    tap=tap,
                )
    except UserError as error:
        reason = f"{error}{_first_failure(settings.out, clients)}"
        if not settings.resume:
            _remove_unbegun(settings.out)
        raise UserError(reason) from error
    finally:
        torch.set_num_threads(threads)
    journal = load_journal(settings.out / "server")
    rows = evaluate_fleet(settings.out, evaluator(), range(clients))
    dense = dense_figures(backbone, data)
    final = _final_record(journal, settings.out, clients)
    rounds = [_with_evaluations(record, settings.out, clients) for record in journal.rounds]
    summary = summarize(rows, rounds, final, dense)
    summary["privacy"] = write_privacy(final["privacy"])
    if settings.epsilon_budget is not None:
        summary["clients_sat_out"] = sat_out(settings.out, clients)
    summary["wall_seconds"] = time.perf_counter() - started
    summary["cpu_seconds"] = time.process_time() - cpu_started
    summary["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hidden = ("enrolment-file", "out-dir", "resume", "private-data")
    shown = {key: value for key, value in config.items() if key not in hidden}
    return FleetResult(dense.model, shown, rounds, final, rows, summary)


def _world(
    settings: FleetSettings, config: dict[str, ConfigValue], backbone: Backbone, facts: InputFacts
) -> tuple[FleetData | SpeakerData, Callable[[], Judge]]:
    """Return who holds what, and what makes who judges their models in the end."""
    if isinstance(facts.preprocessing, TextPreprocessing):
        if settings.partition == FleetSettings.partition:
            config["partition"] = "natural"
        speakers = make_speaker_data(config, settings.clients, facts)
        speakers = with_canary_texts(speakers, facts.preprocessing, canaries=settings.canaries, seed=settings.seed)
        return speakers, lambda: TextEvaluator(backbone, speakers)
    data = make_fleet_data(config, settings.clients, facts)
    return data, lambda: Evaluator(backbone, data, adapt_head=settings.adapt_head)


def check_cohort(settings: FleetSettings, clients: int) -> None:
    """Raise UserError if the strategy can't reduce the vectors, or the sums, of as many clients as a round asks."""
    rows, what = clients, "clients"
    if settings.secure_aggregation == "cohorts":
        rows, what = max(1, clients // settings.cohort_size), f"clients in cohorts of {settings.cohort_size}"
    elif settings.secure_aggregation == "sum":
        rows = 1
    try:
        make_strategy(settings.strategy).check_cohort(rows)
        if settings.dp == "distributed":
            honest_shares(-(-clients // rows))
    except UserError as error:
        raise UserError(f"a round asks {clients} {what}; {error}") from error


def make_identities(settings: FleetSettings, config: dict[str, bool | int | float | str]) -> SimulatedIdentities | None:
    """Return who the clients are in secure sums, and tell the server by `config`; None if there are no such sums."""
    if settings.secure_aggregation == "off":
        return None
    identities = SimulatedIdentities.new()
    config["enrolment-file"] = str(identities.write(settings.out))
    return identities


def _final_record(journal: Journal, out: Path, clients: int) -> dict[str, Any]:
    if journal.final is None:
        raise UserError(f"{out}: the run ended before its final pass; continue it with --resume")
    return _with_evaluations(journal.final, out, clients)


def _with_evaluations(record: dict[str, Any], out: Path, clients: int) -> dict[str, Any]:
    """Add how many evaluations a client of this round spent on average: the simulator reads what clients noted."""
    spent = []
    for client in range(clients):
        path = client_folder(out, client) / RECORD
        entry = json.loads(path.read_text())["rounds"].get(str(record["round"])) if path.is_file() else None
        if entry is not None:
            spent.append(entry["evaluations"])
    return {**record, "evaluations_per_client": float(np.mean(spent)) if spent else 0.0}


def _remove_unbegun(out: Path) -> None:
    """Remove what a run left that ended before its first round did: there is nothing in it to resume."""
    journal = out / "server" / JOURNAL
    if journal.is_file() and not json.loads(journal.read_text())["rounds"]:
        for folder in (out / "server", out / "clients"):
            shutil.rmtree(folder, ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()


def _first_failure(out: Path, clients: int) -> str:
    """Return what the first client that failed noted in its own directory, which only a simulator can read."""
    for client in range(clients):
        path = client_folder(out, client) / "last_error.json"
        if path.is_file():
            return f"; client {client}: {json.loads(path.read_text())['message']}"
    return ""
