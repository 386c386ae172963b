"""A fleet of speakers with a tiny language model, from the command line to its report."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from fedsieve import app
from personalization.data.tasks import text_samples
from personalization.model_files.backbone import load_backbone
from personalization.model_files.storage import load_personal_model, stored_bytes
from personalization.prediction.continuation import read_scored
from personalization.prediction.scoring import score_tokens
from simulations.report.page import page
from tests.tiny_text import write_language_model, write_speakers

CHOICES = ["--windows", "10", "--window-tokens", "16", "--tolerance", "20"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    return write_language_model(folder / "model"), write_speakers(folder / "speakers"), folder


@pytest.fixture(scope="module")
def report(places):
    model, data, folder = places
    out = folder / "run"
    fleet = ["--rounds", "1", "--fraction", "1", "--probes", "2", "--budget", "0.7", "--out", str(out)]
    result = CliRunner().invoke(app, ["simulate", "--model", str(model), "--data", str(data), *CHOICES, *fleet])
    assert result.exit_code == 0, result.output
    assert "personal to dense perplexity" in result.output
    return json.loads((out / "report.json").read_text())


def test_a_fleet_of_text_reports_perplexity_beside_the_dense_model(report):
    assert [client["name"] for client in report["clients"]] == ["speaker-0", "speaker-1", "speaker-2"]
    ratios = [client["personal_perplexity"] / client["dense_perplexity"] for client in report["clients"]]
    for client, ratio in zip(report["clients"], ratios, strict=True):
        assert client["perplexity_ratio"] == pytest.approx(ratio)
        assert client["dense_bits_per_token"] == pytest.approx(math.log2(client["dense_perplexity"]))
        assert client["weights_kept"] <= 0.7
        assert "personal_accuracy" not in client
    logs = sum(map(math.log, ratios)) / len(ratios)
    assert report["summary"]["perplexity_ratio_mean"] == pytest.approx(math.exp(logs))
    assert report["settings"]["partition"] == "natural"
    assert report["summary"]["uplink_bytes_per_client_round_mean"] < 2000


def test_the_page_of_a_fleet_of_text_speaks_of_text(report):
    text = page(report)
    assert "Bits per token against size" in text
    assert "one window of text" in text
    assert "accuracy" not in text.lower().split("<script>")[0]
    assert "speaker-1" in text


def test_personalize_saves_a_tied_model_that_predict_scores_and_speaks_with(places, tmp_path):
    model, data, _ = places
    own, out = data / "speaker-1", tmp_path / "own"
    made = CliRunner().invoke(
        app,
        ["personalize", "--model", str(model), "--data", str(own), "--out", str(out), "--budget", "0.6", *CHOICES,
         "--recovery", "distill", "--json"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    record = json.loads(made.output)
    assert record["task"] == "text"
    assert record["footprint"]["personal"]["weights"] < record["footprint"]["dense"]["weights"]
    loaded = load_personal_model(out)
    assert loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight
    file = own / "1903.txt"
    said = CliRunner().invoke(app, ["predict", str(out), str(file), "--prompt", "the river", "--tokens", "5", "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.output)
    assert found["scores"][0]["perplexity"] == pytest.approx(2 ** found["scores"][0]["bits_per_token"])
    assert found["prompt"] == "the river"
    again = CliRunner().invoke(app, ["predict", str(out), "--prompt", "the river", "--tokens", "5"])
    assert again.output.startswith("the river" + found["continuation"].rstrip("\n")[:1])
    ids = torch.randint(0, 320, (2, 9))
    assert score_tokens(loaded.model, ids[:, :-1], ids[:, 1:]).perplexity > 1.0


def test_predict_scores_and_speaks_with_a_dense_model_too(places):
    model, data, _ = places
    file = data / "speaker-1" / "1903.txt"
    said = CliRunner().invoke(app, ["predict", str(model), str(file), "--prompt", "the river", "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.output)
    backbone = load_backbone(str(model))
    samples = text_samples(read_scored(file, backbone.preprocessing))
    score = score_tokens(backbone.model, samples.inputs["input_ids"], samples.labels)
    assert found["scores"][0]["perplexity"] == pytest.approx(score.perplexity)
    assert found["continuation"]


def test_a_cut_vocabulary_is_smaller_and_any_text_is_still_scored(places, tmp_path):
    model, data, _ = places
    out, other = tmp_path / "own", tmp_path / "other.txt"
    start = ["personalize", "--model", str(model), "--data", str(data / "speaker-1"), *CHOICES, "--budget", "0.9"]
    made = CliRunner().invoke(app, [*start, "--out", str(out), "--vocabulary", "290", "--json"])
    assert made.exit_code == 0, made.output
    weights = {name: cost["weights"] for name, cost in json.loads(made.output)["footprint"].items()}
    loaded = load_personal_model(out)
    assert loaded.manifest.config["vocab_size"] <= 290
    assert json.loads(made.output)["vocabulary"] == {"dense": 320, "personal": loaded.manifest.config["vocab_size"]}
    assert weights["dense"] - weights["personal"] > (320 - loaded.manifest.config["vocab_size"]) * 36
    other.write_text("Ein Fluß, 河, и другие слова")
    said = CliRunner().invoke(app, ["predict", str(out), str(other), "--json"])
    assert said.exit_code == 0, said.output
    score = json.loads(said.output)["scores"][0]
    assert score["bits_per_byte"] == pytest.approx(score["bits_per_token"], rel=0.2)


def test_a_fleet_that_cuts_its_vocabularies_and_tunes_is_judged_in_whole_tokens(places, report, tmp_path):
    model, data, _ = places
    fleet = ["--rounds", "1", "--fraction", "1", "--probes", "2", "--budget", "0.7", "--vocabulary", "280"]
    tuned = ["--recovery", "tune", "--training-steps", "60"]
    found = {}
    kinds = {"as cut": [], "tuned": tuned, "adapters": [*tuned, "--adapters", "2"], "refit": ["--refit-samples", "99"]}
    for name, extra in kinds.items():
        own = [*fleet, *extra, "--out", str(tmp_path / name)]
        result = CliRunner().invoke(app, ["simulate", "--model", str(model), "--data", str(data), *CHOICES, *own])
        assert result.exit_code == 0, result.output
        found[name] = json.loads((tmp_path / name / "report.json").read_text())
        assert found[name]["settings"]["vocabulary"] == 280
    refit = found.pop("refit")["clients"]
    assert [client["bytes"] for client in refit] == [client["bytes"] for client in found["as cut"]["clients"]]
    for client, cut in zip(refit, found["as cut"]["clients"], strict=True):
        assert client["personal_perplexity"] != cut["personal_perplexity"]
    for before, cut, *others in zip(report["clients"], *(run["clients"] for run in found.values()), strict=True):
        for client in others:
            assert client["dense_perplexity"] == before["dense_perplexity"]
            assert client["test_tokens"] == before["test_tokens"]
            assert client["personal_perplexity"] < 0.9 * cut["personal_perplexity"]
            assert client["bytes"] == cut["bytes"] < before["bytes"]
    loaded = load_personal_model(tmp_path / "tuned" / "clients" / "client-0" / "model")
    assert loaded.manifest.config["vocab_size"] <= 280


def test_a_fleet_that_is_tuned_before_its_vocabularies_are_cut_speaks_better(places, tmp_path):
    model, data, _ = places
    # Few tokens go: how rare words are spelled, which a pre-trained model knows, the tiny one has never learned.
    fleet = ["--rounds", "1", "--fraction", "1", "--probes", "2", "--budget", "0.7", "--vocabulary", "316"]
    found = []
    for extra in ([], ["--tune-first", "60", "--refit-samples", "99"]):
        own = [*fleet, *extra, "--out", str(tmp_path / f"run{len(extra)}")]
        result = CliRunner().invoke(app, ["simulate", "--model", str(model), "--data", str(data), *CHOICES, *own])
        assert result.exit_code == 0, result.output
        found.append(json.loads((tmp_path / f"run{len(extra)}" / "report.json").read_text())["clients"])
    for cut, tuned in zip(*found, strict=True):
        assert tuned["dense_perplexity"] == cut["dense_perplexity"]
        assert tuned["personal_perplexity"] < 0.9 * cut["personal_perplexity"]


def test_a_share_of_all_bytes_counts_the_tokens_that_are_gone(places, tmp_path):
    model, data, _ = places
    start = ["personalize", "--model", str(model), "--data", str(data / "speaker-1"), *CHOICES, "--json"]
    kept = []
    for extra in ([], ["--vocabulary", "257"]):
        out = tmp_path / f"own{len(extra)}"
        arguments = [*start, "--budget", "0.75", "--budget-kind", "bytes", "--out", str(out), *extra]
        made = CliRunner().invoke(app, arguments)
        assert made.exit_code == 0, made.output
        found = json.loads(made.output)
        weights = {name: cost["weights"] for name, cost in found["footprint"].items()}
        assert 0.7 < weights["personal"] / weights["dense"] <= 0.76
        kept.append(found["weights_kept"])
    assert kept[1] > kept[0] + 0.01


def test_devices_choose_how_many_tokens_they_keep_of_a_share_of_all_bytes(places, tmp_path):
    model, data, _ = places
    start = ["simulate", "--model", str(model), "--data", str(data), *CHOICES, "--vocabulary", "-1"]
    fleet = ["--rounds", "2", "--fraction", "1", "--probes", "2", "--budget", "0.75", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*start, *fleet, "--budget-kind", "bytes"])
    assert result.exit_code == 0, result.output
    assert "tokens that a personal model knows" in result.output
    whole = stored_bytes(load_backbone(str(model)).model, "float16")
    for client in json.loads((tmp_path / "run" / "report.json").read_text())["clients"]:
        loaded = load_personal_model(tmp_path / "run" / "clients" / f"client-{client['client']}" / "model")
        assert 257 <= loaded.manifest.config["vocab_size"] == client["vocabulary"] <= 320
        # A refitted writer has a bias, which no budget counts.
        assert 0.7 < client["bytes"] / whole < 0.78
    refused([*start, *fleet[:-1], str(tmp_path / "none")], "budget is of weights; use --budget-kind bytes")


def refused(arguments, words):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    message = " ".join(result.output.split())
    assert words in message
    assert "Traceback" not in message


def test_bad_input_ends_in_one_line(places, tmp_path):
    model, data, _ = places
    start = ["simulate", "--model", str(model), "--out", str(tmp_path / "run"), *CHOICES, "--rounds", "1"]
    refused(start, "a fleet of text needs --data")
    refused([*start, "--task", "image"], "a model of the task text")
    refused([*start, "--data", str(data), "--partition", "dirichlet"], "use --partition natural")
    refused([*start, "--data", str(tmp_path / "missing")], "no such folder")
    short = tmp_path / "short" / "one"
    short.mkdir(parents=True)
    (short / "1.txt").write_text("gold")
    refused([*start, "--data", str(short.parent)], "one file of text; expected two or more")
    (short / "2.txt").write_text("gold")
    refused([*start, "--data", str(short.parent)], "too little text")
    limited = ["--data", str(data), "--layer-limit", "0.5", "--budget", "0.3"]
    refused([*start, *limited], "budget 0.3: the limits allow at least 0.5")
    refused(["simulate", "--task", "text", "--out", str(tmp_path / "run")], "a model of the task image")
    refused(["predict", str(tmp_path), "--prompt", "x"], "no personal model here")


def test_a_tokenizer_of_another_model_is_refused(places, tmp_path):
    _, data, _ = places
    other = write_language_model(tmp_path / "other")
    record = json.loads((other / "tokenizer.json").read_text())
    record["model"]["vocab"]["far away"] = 400
    (other / "tokenizer.json").write_text(json.dumps(record))
    start = ["personalize", "--model", str(other), "--data", str(data / "speaker-0"), "--out", str(tmp_path / "x")]
    refused(start, "makes 401 tokens, but the model has 320")
    (other / "tokenizer.json").unlink()
    refused(start, "nor comes with a tokenizer; expected an image classifier")
