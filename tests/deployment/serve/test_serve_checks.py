import importlib.util
import os
import re
import socket
import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tiny_text import write_language_model

from deployment.certificates import utc_now
from deployment.command import Enrolment, ModelFacts, enroll
from deployment.fleet import read_fleet
from deployment.serve import checks
from deployment.serve.checks import FLOWER, check_flower, check_model, check_ports, check_start
from deployment.serve.settings import ServeSettings
from deployment.serve.state import open_state
from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from server.journal import Journal, extend_journal
from server.planning import FleetKnowledge

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fleet(tmp_path) -> Path:
    enroll(tmp_path / "fleet", Enrolment(server="localhost:8443"))
    return tmp_path / "fleet"


def settings(fleet: Path, **changes) -> ServeSettings:
    chosen = {"fleet": fleet, "state": fleet.with_name("state"), "model": "m", "host": "127.0.0.1", "port": 21460}
    return ServeSettings(**{**chosen, "superlink_port": 21461, "status": None, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"every": timedelta(hours=1), "once": True}, "give one of them"),
        ({"superlink_port": 21460}, "--port 21460, --superlink-port 21460: give each"),
        ({"port": 0}, "--port 0: expected a port"),
        ({"rounds": -1}, "rounds -1: expected 0 or more"),
        ({"quorum": 0.0}, "quorum 0.0: expected a share"),
        ({"deadline": 0.0}, "--deadline 0"),
        ({"min_nodes": 0}, "min-nodes 0"),
        ({"seed": -1}, "--seed -1"),
        ({"windows": 7}, "7 windows of 128 tokens: expected 8 or more"),
        ({"recovery": "none"}, "recovery 'none': expected one of fold, ridge, distill, tune"),
        ({"training_steps": -1}, "training_steps -1: expected 0 or more"),
        ({"refit_samples": -1}, "refit_samples -1: expected 0 or more"),
        ({"tune_first": -1}, "tune_first -1: expected 0 or more"),
        ({"adapters": -2}, "adapters -2: expected 0 or more"),
        ({"training_precision": "half"}, "training_precision 'half': expected one of single, bfloat16"),
        ({"vocabulary": -3}, "a vocabulary of -3 tokens: expected 0 or more"),
        ({"vocabulary": -1, "budget_kind": "macs"}, "but the budget is of macs; use --budget-kind bytes"),
        ({"budget_kind": "weight"}, "budget_kind 'weight': expected one of weights, bytes, macs, latency"),
    ],
)
def test_values_that_make_no_sense_are_named(fleet, changes, text):
    with pytest.raises(UserError, match=re.escape(text)):
        settings(fleet, **changes)


def test_a_fleet_that_is_well_can_be_served(fleet):
    assert check_start(settings(fleet)) == read_fleet(fleet)


def test_what_is_wrong_with_the_fleet_is_said(fleet, tmp_path):
    with pytest.raises(UserError, match="no fleet here"):
        check_start(settings(tmp_path / "none"))
    with pytest.raises(UserError, match=r"valid from .* --renew server"):
        check_start(settings(fleet), now=utc_now() + timedelta(days=400))
    (fleet / "server.key").chmod(0o644)
    with pytest.raises(UserError, match=r"open to other users .* chmod 600"):
        check_start(settings(fleet))


def test_a_certificate_of_another_server_or_fleet_is_refused(fleet, tmp_path):
    enroll(tmp_path / "other", Enrolment(server="a.org:1"))
    own = {name: (fleet / name).read_bytes() for name in ("server.crt", "server.key")}
    for name in own:
        (fleet / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(UserError, match="not one of this fleet's authority"):
        check_start(settings(fleet))
    (fleet / "server.key").write_bytes(own["server.key"])
    with pytest.raises(UserError, match=r"server\.crt: not for server\.key"):
        check_start(settings(fleet))


def test_a_strategy_that_is_not_there_and_a_status_page_that_is_not_installed(fleet, monkeypatch):
    with pytest.raises(UserError, match="mediam"):
        check_start(settings(fleet, strategy="mediam"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--no-status"):
        check_start(settings(fleet, status=("127.0.0.1", 21462)))


def test_flower_must_be_a_version_that_the_package_asks_for():
    for version in ("1.41.0", "1.42.3"):
        check_flower(version)
    for version in ("1.40.9", "1.43.0", "2.0", "nonsense"):
        with pytest.raises(UserError, match=f"flwr {version}: expected 1.41 or newer, before 1.43"):
            check_flower(version)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    first, end = (".".join(map(str, bound)) for bound in FLOWER)
    assert f"flwr[simulation]>={first},<{end}" in extras["fleet"]


@pytest.mark.parametrize(("taken", "what"), [("port", "public address"), ("superlink_port", "SuperLink")])
def test_a_port_in_use_is_named(fleet, taken, what):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"{what} .*127\.0\.0\.1:{port}: port in use"):
            check_ports(settings(fleet, **{taken: port}), patience=0.0)
    check_ports(settings(fleet, **{taken: port}), patience=0.0)


def test_an_address_of_another_machine_is_named(fleet):
    with pytest.raises(UserError, match=r"192\.0\.2\.1:21460: can't listen there"):
        check_ports(settings(fleet, host="192.0.2.1"))


def test_the_model_must_be_the_fleets(fleet, tiny_vit_folder):
    enroll(fleet, Enrolment(model=str(tiny_vit_folder)))
    check_model(settings(fleet, model=str(tiny_vit_folder)), read_fleet(fleet))
    with pytest.raises(UserError, match="nothing-here"):
        check_model(settings(fleet, model=str(fleet / "nothing-here")), read_fleet(fleet))


def test_a_language_model_comes_with_its_tokenizer_and_reads_the_windows(fleet, tmp_path):
    model = write_language_model(tmp_path / "model")
    served = settings(fleet, model=str(model), window_tokens=64)
    check_model(served, read_fleet(fleet))
    with pytest.raises(UserError, match=r"windows of 128 tokens: .* reads 64; choose with --window-tokens"):
        check_model(replace(served, window_tokens=None), read_fleet(fleet))
    (model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="a causal language model with its tokenizer"):
        check_model(served, read_fleet(fleet))


def test_windows_are_for_text(fleet, monkeypatch):
    monkeypatch.setattr(checks, "_facts", lambda model: ModelFacts(root="ab" * 32, context=None))
    check_model(settings(fleet), read_fleet(fleet))
    with pytest.raises(UserError, match="sees images, not text; leave out --windows"):
        check_model(settings(fleet, windows=9), read_fleet(fleet))


def test_a_vocabulary_is_for_language_models_and_holds_what_spells_any_text(fleet, tmp_path, monkeypatch):
    model = write_language_model(tmp_path / "model")
    served = settings(fleet, model=str(model), window_tokens=64, vocabulary=257)
    check_model(served, read_fleet(fleet))
    with pytest.raises(UserError, match=r"--vocabulary 256: .* keeps 257 tokens or more"):
        check_model(replace(served, vocabulary=256), read_fleet(fleet))
    words = ModelFacts(root="ab" * 32, context=64, fewest_tokens=None)
    monkeypatch.setattr(checks, "_facts", lambda model: words)
    check_model(replace(served, vocabulary=0), read_fleet(fleet))
    with pytest.raises(UserError, match="its vocabulary can't be cut; leave out --vocabulary"):
        check_model(served, read_fleet(fleet))
    monkeypatch.setattr(checks, "_facts", lambda model: ModelFacts(root="ab" * 32, context=None))
    with pytest.raises(UserError, match="sees images, so it has no vocabulary; leave out --vocabulary"):
        check_model(settings(fleet, vocabulary=257), read_fleet(fleet))
    with pytest.raises(UserError, match="sees images, and cuts on all of them; leave out --refit-samples"):
        check_model(settings(fleet, refit_samples=64), read_fleet(fleet))


def test_what_devices_keep_and_train_may_change_from_one_start_to_the_next(fleet, monkeypatch):
    monkeypatch.setattr(checks, "_facts", lambda model: ModelFacts(root="ab" * 32, context=64, fewest_tokens=9))
    empty = FleetKnowledge.empty(StatisticsLayout(layers=2, levels=1, groups=4))
    own = settings(fleet, window_tokens=32)
    earlier = own.run_config()
    training = ("tune-first", "training-steps", "adapters", "training-precision")
    for key in ("vocabulary", "budget-kind", "refit-samples", *training):
        del earlier[key]  # a fleet of before there were such settings
    folder, root = own.journal_dir, bytes.fromhex("ab" * 32)
    extend_journal(folder, settings=earlier, root=root, empty=empty, rounds=1).save(folder)
    changed = replace(
        own, vocabulary=10, refit_samples=20, tune_first=3, training_steps=0, adapters=2, training_precision="bfloat16"
    )
    check_model(changed, read_fleet(fleet))
    assert changed.public()["vocabulary"] == 10
    check_model(replace(changed, vocabulary=-1, budget_kind="bytes"), read_fleet(fleet))


def test_another_model_is_refused_and_so_is_a_journal_of_other_settings(fleet, monkeypatch):
    monkeypatch.setattr(checks, "_facts", lambda model: ModelFacts(root="ab" * 32, context=None))
    own = settings(fleet)
    check_model(own, read_fleet(fleet))
    empty = FleetKnowledge.empty(StatisticsLayout(layers=2, levels=1, groups=4))
    Journal({**own.run_config(), "strategy": "median"}, "ab" * 32, empty).save(own.journal_dir)
    with pytest.raises(UserError, match="strategy was 'median'"):
        check_model(own, read_fleet(fleet))
    (fleet / "fleet.json").write_text((fleet / "fleet.json").read_text().replace('"model": null', '"model": "cd"'))
    with pytest.raises(UserError, match="not the model that this fleet's devices take"):
        check_model(own, read_fleet(fleet))


def test_one_server_a_state_folder(tmp_path):
    with (
        open_state(tmp_path / "state") as state,
        pytest.raises(UserError, match="another fedsieve serve"),
        open_state(state.path),
    ):
        pass
    with open_state(tmp_path / "state"):
        assert os.stat(tmp_path / "state").st_mode & 0o077 == 0


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").touch()
    with pytest.raises(UserError, match="holds something else"), open_state(tmp_path / "mine"):
        pass
    with pytest.raises(UserError, match="a file"), open_state(tmp_path / "mine" / "photo.png"):
        pass
    (tmp_path / "mine" / "photo.png").rename(tmp_path / "mine" / ".lock")
    (tmp_path / "mine").chmod(0o755)
    with pytest.raises(UserError, match="chmod 700"), open_state(tmp_path / "mine"):
        pass
