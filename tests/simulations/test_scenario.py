import json
import tomllib
from pathlib import Path

import pytest

from personalization.errors import UserError
from simulations.conditions.settings import Attackers, Conditions, DeviceClass, Drift, LateJoiners
from simulations.fleet_settings import FleetSettings
from simulations.scenario import SCENARIOS, Scenario, bundled_scenarios, read_scenario
from simulations.sotu import default_folder

EVERYTHING = """
name = "mine"
description = "all tables"
target_loss = 0.02
[fleet]
clients = 40
rounds = 4
fraction = 1
partition = "dirichlet"
alpha = 5
[conditions]
dropout = 0.1
stragglers = 0.2
[[devices]]
name = "phone"
share = 0.5
budget = 0.2
speed = 0.5
[[devices]]
name = "laptop"
share = 0.25
[late]
share = 0.1
after_round = 2
[drift]
share = 0.3
at_round = 3
[attack]
kind = "inflation"
share = 0.3
strength = 10
"""


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text)
    return path


def test_every_table_is_read(tmp_path):
    scenario = read_scenario(write(tmp_path, EVERYTHING))
    assert (scenario.name, scenario.description, scenario.target_loss) == ("mine", "all tables", 0.02)
    assert scenario.conditions == Conditions(
        dropout=0.1,
        stragglers=0.2,
        devices=(
            DeviceClass(name="phone", share=0.5, budget=0.2, speed=0.5),
            DeviceClass(name="laptop", share=0.25),
        ),
        late=LateJoiners(share=0.1, after_round=2),
        drift=Drift(share=0.3, at_round=3),
        attack=Attackers(kind="inflation", share=0.3, strength=10.0),
    )
    assert {key: scenario.fleet[key] for key in ("clients", "rounds", "fraction", "partition", "alpha")} == {
        "clients": 40,
        "rounds": 4,
        "fraction": 1.0,
        "partition": "dirichlet",
        "alpha": 5.0,
    }


def test_what_is_left_out_is_the_default_and_the_same_as_the_default_written_out(tmp_path):
    plain = read_scenario(write(tmp_path, "", "s.toml"))
    out = tmp_path / "out"
    assert plain.fleet_settings(out=out, seed=7) == FleetSettings(out=out, seed=7)
    written = read_scenario(write(tmp_path, "[fleet]\nclients = 30\n[conditions]\ndropout = 0\n", "s.toml"))
    assert plain == written
    assert json.dumps(plain.to_dict()) == json.dumps(written.to_dict())


@pytest.mark.parametrize("text", ["", EVERYTHING])
def test_a_scenario_survives_json_exactly(tmp_path, text):
    scenario = read_scenario(write(tmp_path, text))
    record = json.loads(json.dumps(scenario.to_dict()))
    assert Scenario.from_dict(record) == scenario
    assert Scenario.from_dict(record).to_dict() == scenario.to_dict()


IMAGES = sorted({*bundled_scenarios()} - {"speakers"})


def test_the_scenario_of_text_is_about_the_speeches_that_are_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fleet = read_scenario("speakers").fleet
    assert (fleet["model"], fleet["partition"]) == ("smollm2", "natural")
    assert Path(fleet["data"]) == default_folder() == tmp_path / "fedsieve" / "state-of-the-union"


@pytest.mark.parametrize("name", IMAGES)
def test_bundled_scenarios_are_what_their_names_say(name):
    scenario = read_scenario(name)
    assert scenario.name == name
    assert scenario.description
    fleet = scenario.fleet
    assert (fleet["clients"], fleet["samples"], fleet["budget"]) == (20, 64, 0.3)
    assert (fleet["rounds"], fleet["fraction"]) == ((2, 1.0) if name == "attack" else (3, 0.5))
    given = tomllib.loads((SCENARIOS / f"{name}.toml").read_text())
    tables = {"attack": {"attack"}, "dropout": {"conditions"}, "late-joiners": {"late"}, "drift": {"drift"}}
    tables["devices"] = {"conditions", "devices"}
    assert set(given) == {"description", "fleet"} | tables.get(name, set())


def test_the_documents_name_all_bundled_scenarios_and_every_key():
    assert bundled_scenarios() == sorted(
        ["benign", "attack", "dropout", "non-iid", "nearly-iid", "late-joiners", "drift", "devices", "speakers"]
    )
    text = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
    assert all(f"`{name}`" in text for name in bundled_scenarios())
    keys = {path.split(".")[-1] for path in read_scenario("devices").setting_types()}
    assert all(f"`{key}`" in text for key in keys)


def test_relative_paths_start_at_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "scenarios"
    (folder / "vit").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write(folder, '[fleet]\ndata = "../photos.npz"\nmodel = "vit"\n')
    scenario = read_scenario("scenarios/mine.toml")
    assert Path(scenario.fleet["data"]).resolve() == tmp_path.resolve() / "photos.npz"
    assert Path(scenario.fleet["data"]).is_absolute()
    assert scenario.fleet["model"] == str(folder / "vit")
    assert isinstance(scenario.fleet_settings(out=tmp_path).data, Path)
    write(folder, '[fleet]\nmodel = "google/vit-base-patch16-224"\n')
    assert read_scenario("scenarios/mine.toml").fleet["model"] == "google/vit-base-patch16-224"


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("budget", 0.4, "fleet.budget"),
        ("fleet.budget", "0.4", "fleet.budget"),
        ("classes-per-client", "2", "fleet.classes_per_client"),
        ("reuse", "true", "fleet.reuse"),
        ("dropout", "0.3", "conditions.dropout"),
        ("attack.kind", "mimic", "attack.kind"),
        ("after_round", 1, "late.after_round"),
        ("target_loss", 0.05, "target_loss"),
    ],
)
def test_one_setting_is_changed_and_nothing_else(name, value, path):
    before = read_scenario("attack").with_setting("late.share", 0.1)
    after = before.with_setting(name, value)
    assert before.setting_path(name) == path
    table, _, key = path.partition(".")
    changed = before.to_dict()
    expected = {"0.4": 0.4, "0.3": 0.3, "2": 2, "true": True}.get(value, value)
    if key:
        changed[table][key] = expected
    else:
        changed[table] = expected
    assert after.to_dict() == changed


def test_a_setting_of_one_class_of_devices_is_changed():
    devices = read_scenario("devices").with_setting("devices.phone.budget", "0.1").conditions.devices
    assert [device.budget for device in devices] == [0.1, None, 0.5]


def test_a_table_that_is_missing_is_begun():
    assert read_scenario("benign").with_setting("attack.kind", "random").conditions.attack == Attackers(kind="random")
    assert read_scenario("benign").with_setting("drift.share", 0.1).conditions.drift == Drift(share=0.1)
    with pytest.raises(UserError, match=r"attack\.kind is missing: expected a text"):
        read_scenario("benign").with_setting("attack.share", 0.1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("share", 0.1, r"could be any of late\.share, drift\.share, attack\.share"),
        ("bugdet", 0.1, r"did you mean budget"),
        ("attack.knid", "random", r"did you mean attack\.kind"),
        ("attack.kind", "signflip", "did you mean sign-flip"),
        ("partition", "class", "did you mean classes"),
        ("budget", "much", r"fleet\.budget 'much': expected a number"),
        ("clients", "2.5", r"fleet\.clients 2\.5: expected a whole number"),
        ("clients", 2, r"attack\.share 0\.2 of 2 clients is none"),
        ("budget", 2, "budget 2.0: expected a share"),
        ("reuse", "maybe", r"fleet\.reuse 'maybe': expected true or false"),
        ("samples", 1, "1 samples for 3 classes"),
        ("after_round", 4, r"late\.after_round 4: expected at most the 2 rounds"),
        ("at_round", 5, r"drift\.at_round 5: expected at most 3"),
        ("target_loss", -1, "target_loss"),
    ],
)
def test_settings_that_do_not_work_are_named(name, value, message):
    with pytest.raises(UserError, match=message):
        read_scenario("attack").with_setting(name, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[flet]\n", "did you mean fleet"),
        ("[fleet]\nclient = 3\n", "key of fleet 'client': unknown; did you mean clients"),
        ("[fleet]\nseed = 3\n", "key of fleet 'seed': unknown"),
        ("[fleet]\nclients = '3'\n", r"fleet\.clients '3': expected a whole number"),
        ("[fleet]\nclients = true\n", r"fleet\.clients True: expected a whole number"),
        ("[conditions]\ndropuot = 0.1\n", "did you mean dropout"),
        ("[conditions]\ndropout = 1.5\n", r"conditions\.dropout 1\.5"),
        ("[attack]\nkind = 'krum'\n", "unknown; did you mean"),
        ("[attack]\nshare = 0.2\n", r"attack\.kind is missing"),
        ("[attack]\nkind = 'random'\nshare = 0.6\n[late]\nshare = 0.4\n", "add up to 1"),
        ("[devices]\nname = 'a'\n", r"\[\[devices\]\]"),
        ("[[devices]]\nname = 'a'\nshare = 0.6\n[[devices]]\nname = 'b'\nshare = 0.6\n", r"add up to 1\.2"),
        ("[[devices]]\nname = 'a'\nshare = 0.6\nspede = 2\n", "did you mean speed"),
        ("[[devices]]\nshare = 0.6\n", r"devices\.name is missing: expected a text"),
        ("late = 3\n", r"late: expected a table, \[late\]"),
        ("name = 3\n", "name 3: expected a text"),
        ("[fleet\n", "not valid TOML"),
    ],
)
def test_mistakes_in_a_file_are_named_with_the_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_scenario(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scenario_that_there_is_not_gets_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="did you mean late-joiners"):
        read_scenario("late-joiner")
    with pytest.raises(UserError, match="No such file"):
        read_scenario(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not valid TOML"):
        read_scenario(tmp_path / "binary.toml")
