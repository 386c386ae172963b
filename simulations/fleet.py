"""Run a simulated fleet from settings to a report: the entry of the command line and of the benchmarks."""

import json
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from client.app import make_app as make_client_app
from client.data import ConfigValue, InputFacts
from client.entries import RECORD
from personalization.data.tasks import check_task, task_of
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.backbone import Backbone, load_backbone
from personalization.system.torch_threads import torch_threads
from server.app import make_app as make_server_app
from server.journal import JOURNAL, Journal, load_journal
from server.sampling import sample_size
from simulations.engine import run_in_process
from simulations.evaluation import (
    DenseFigures,
    Evaluator,
    Judge,
    client_folder,
    dense_figures,
    evaluate_fleet,
    summarize,
)
from simulations.fleet_checks import check_fields, check_fleet_budget
from simulations.fleet_settings import FleetSettings
from simulations.identities import SimulatedIdentities
from simulations.noise import SimulatedNoise
from simulations.privacy_budgets import budget_of, sat_out
from simulations.private_data import FleetData, make_fleet_data, make_speakers
from simulations.recording import recorded
from simulations.speakers import SpeakerData
from simulations.text_evaluation import TextEvaluator
from strategies.privacy.mechanism import honest_shares
from strategies.privacy.words import write_privacy
from strategies.registry import make_strategy

# Weights.
_LARGE_MODEL = 50_000_000

OnRound = Callable[[dict[str, Any]], None]


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
    settings: FleetSettings,
    *,
    on_round: OnRound | None = None,
    on_answer: Callable[[], None] | None = None,
    on_judged: Callable[[], None] | None = None,
) -> FleetResult:
    """Run the fleet, evaluate every client's own personal model, and return the report.

    on_round: called after each round, and after the final pass (whose number is rounds + 1), with its record.
    on_answer: called after each answer of a client, but not under Ray. on_judged: called when a personal model was run
    on its client's test data. Raises UserError for settings, data or models that do not work, and for a folder that
    holds another run.
    """
    started = _Clock.now()
    config = settings.run_config()
    backbone = load_backbone(str(config["model"]))
    preprocessing = check_task(
        backbone.preprocessing, backbone.labels, wanted=settings.task, model=str(config["model"])
    )
    check_fields(vars(settings), task_of(preprocessing), spelled="--{option}")
    check_fleet_budget(settings, backbone)
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
    server_app = make_server_app(config=config, on_round=report_round, noise=noise.server, load=lambda _: backbone)
    try:
        with torch_threads(working_threads(backbone.model, torch.get_num_threads())):
            if settings.engine == "ray":
                from simulations.engine_ray import run_under_ray

                client_app = make_client_app(config=config, identify=identify, noise=noise)
                run_under_ray(server_app, client_app, clients=clients)
            else:
                with recorded(settings.out if settings.record else None) as tap:
                    run_in_process(
                        server_app,
                        make_client_app(data, identify=identify, noise=noise),
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
    rows = []
    for row in evaluate_fleet(settings.out, evaluator(), range(clients)):
        rows.append(row)
        if on_judged is not None:
            on_judged()
    return _result(settings, config, rows, dense_figures(backbone, data), started)


def _result(
    settings: FleetSettings,
    config: dict[str, ConfigValue],
    rows: list[dict[str, Any]],
    dense: DenseFigures,
    started: "_Clock",
) -> FleetResult:
    """Return what a run has come to whose personal models were judged, `rows` for each client."""
    clients = len(rows)
    journal = load_journal(settings.out / "server")
    final = _final_record(journal, settings.out, clients)
    rounds = [_with_evaluations(record, settings.out, clients) for record in journal.rounds]
    summary = summarize(rows, rounds, final, dense)
    summary["privacy"] = write_privacy(final["privacy"])
    if settings.epsilon_budget is not None:
        summary["clients_sat_out"] = sat_out(settings.out, clients)
    ended = _Clock.now()
    summary["wall_seconds"] = ended.wall - started.wall
    summary["cpu_seconds"] = ended.cpu - started.cpu
    summary["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hidden = ("enrolment-file", "out-dir", "resume", "private-data")
    shown = {key: value for key, value in config.items() if key not in hidden}
    return FleetResult(dense.model, shown, rounds, final, rows, summary)


@dataclass(frozen=True)
class _Clock:
    """Seconds that pass, and that this process computes."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "_Clock":
        return cls(time.perf_counter(), time.process_time())


def _world(
    settings: FleetSettings, config: dict[str, ConfigValue], backbone: Backbone, facts: InputFacts
) -> tuple[FleetData | SpeakerData, Callable[[], Judge]]:
    """Return who holds what, and what makes who judges their models in the end."""
    if isinstance(facts.preprocessing, TextPreprocessing):
        speakers = make_speakers(config, settings.clients, facts)
        config["partition"] = "natural"  # as the report is to say, whatever stood for it
        return speakers, lambda: TextEvaluator(backbone, speakers)
    data = make_fleet_data(config, settings.clients, facts)
    return data, lambda: Evaluator(backbone, data, adapt_head=settings.adapt_head)


def working_threads(model: nn.Module, available: int) -> int:
    """Return how many of `available` threads clients with parts of `model` work with.

    One: sums in another order differ in their last digits, and small models gain little from two. A large one, which
    takes minutes a client, works with all; its last digits then depend on the machine.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    return available if weights > _LARGE_MODEL else 1


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
