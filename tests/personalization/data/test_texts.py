import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from personalization.data.tasks import TextBatch, check_kind, check_task, load_samples, preprocessing_from_dict, task_of
from personalization.data.texts import TextPreprocessing, read_texts, read_tokens, spread, text_files, windows
from personalization.errors import UserError
from tests.tiny_text import tiny_tokenizer, write_speakers

few = settings(max_examples=25)
BATCH = TextBatch(windows=10, tokens=16)


@pytest.fixture(scope="module")
def preprocessing():
    return TextPreprocessing(tiny_tokenizer().to_str(), 0, 64)


@few
@given(count=st.integers(0, 400), length=st.integers(1, 50), most=st.integers(1, 9), spread_out=st.booleans())
def test_windows_follow_each_other_and_each_token_is_predicted_once(count, length, most, spread_out):
    tokens = np.arange(count)
    found = spread(windows(tokens, length), most) if spread_out else windows(tokens, length)
    assert found.shape[1] == length + 1
    assert (np.diff(found, axis=1) == 1).all()
    assert (found[:, 0] % length == 0).all()
    assert len(np.unique(found[:, 1:])) == found[:, 1:].size
    whole = max((count - 1) // length, 0)
    assert len(found) == (min(whole, most) if spread_out else whole)
    if len(found) > 1:
        assert (found[0, 0], found[-1, -1]) == (0, whole * length)


@few
@given(text=st.text(max_size=80))
def test_every_text_is_encoded_and_comes_back(preprocessing, text):
    assert preprocessing.decode(preprocessing.encode(text)) == text


def test_preprocessing_survives_its_record(preprocessing):
    again = preprocessing_from_dict(json.loads(json.dumps(preprocessing.to_dict())))
    assert again == preprocessing
    assert task_of(again) == "text"
    with pytest.raises(UserError, match="expected tokenizer, separator and context"):
        preprocessing_from_dict({**preprocessing.to_dict(), "context": "long"})


def test_a_folder_of_txt_and_jsonl_is_read_in_the_order_of_its_names(tmp_path, preprocessing):
    (tmp_path / "b.txt").write_text("the senate")
    (tmp_path / "a.jsonl").write_text('{"text": "gold"}\n\n{"text": "river", "id": 3}\n')
    (tmp_path / ".hidden.txt").write_text("not this")
    files = text_files(tmp_path)
    assert [file.name for file in files] == ["a.jsonl", "b.txt"]
    tokens = read_tokens(files, preprocessing)
    parts = [[*preprocessing.encode(text), 0] for text in ("gold", "river", "the senate")]
    assert tokens.tolist() == [token for part in parts for token in part]


def test_samples_of_text_are_windows_with_their_next_tokens(tmp_path, preprocessing):
    folder = write_speakers(tmp_path, speakers=1) / "speaker-0"
    samples = load_samples(folder, preprocessing, labels=(), batch=BATCH)
    assert samples.inputs["input_ids"].shape == samples.labels.shape == (10, 16)
    assert (samples.inputs["input_ids"][:, 1:] == samples.labels[:, :-1]).all()


def test_bad_text_is_named_in_one_line(tmp_path, preprocessing):
    def refused(match):
        with pytest.raises(UserError, match=match) as caught:
            load_samples(tmp_path, preprocessing, labels=(), batch=BATCH)
        assert "\n" not in str(caught.value)

    refused("no text in it; expected .txt files")
    (tmp_path / "a.txt").write_text("")
    refused("too little text, 0 tokens; expected 129 or more, which are 8 windows of 16")
    (tmp_path / "a.txt").write_bytes(b"abc \xff")
    refused(r"a\.txt: not UTF-8 \(byte 4\)")
    (tmp_path / "a.txt").unlink()
    for line in ('{"txt": "x"}', "[1]", "{", '{"text": 3}'):
        (tmp_path / "b.jsonl").write_text('{"text": "river"}\n' + line)
        refused(r"b\.jsonl, line 2: no text")
    with pytest.raises(UserError, match="no such folder of text"):
        text_files(tmp_path / "missing")
    with pytest.raises(UserError, match="expected a file of text"):
        read_texts(tmp_path / "missing.txt")


def test_windows_longer_than_the_model_reads_are_refused(tmp_path, preprocessing):
    folder = write_speakers(tmp_path, speakers=1) / "speaker-0"
    with pytest.raises(UserError, match="windows of 65 tokens: expected 2 to 64"):
        load_samples(folder, preprocessing, labels=(), batch=TextBatch(windows=8, tokens=65))
    with pytest.raises(UserError, match="expected 8 or more of 2 or more"):
        TextBatch(windows=7)


def test_a_model_of_another_task_is_refused(preprocessing):
    assert check_task(preprocessing, (), wanted="text", model="m") is preprocessing
    with pytest.raises(UserError, match="m: a model of the task text, but --task image was asked for"):
        check_task(preprocessing, (), wanted="image", model="m")
    with pytest.raises(UserError, match="neither classifies images nor comes with a tokenizer; expected an image"):
        check_task(None, (), wanted=None, model="m")
    with pytest.raises(UserError, match="expected a causal language model"):
        check_task(None, (), wanted="text", model="m")
    with pytest.raises(UserError, match="task 'sound': expected one of image, text"):
        check_task(preprocessing, (), wanted="sound", model="m")


def test_a_tokenizer_that_can_not_be_read_is_named():
    with pytest.raises(UserError, match="can't be read"):
        TextPreprocessing("{}", None, 64).encode("x")


def test_a_tokenizer_that_says_where_to_cut_and_how_to_fill_up_does_neither_here(preprocessing):
    tokenizer = tiny_tokenizer()
    short = Tokenizer.from_str(tokenizer.to_str())
    short.enable_truncation(5)
    short.enable_padding(length=5)
    own = TextPreprocessing(short.to_str(), 0, 64)
    for text in ("river", "the river and the treaty of the senate"):
        assert own.encode(text).tolist() == preprocessing.encode(text).tolist()


def test_data_of_another_kind_than_the_models_are_named(tmp_path):
    texts = write_speakers(tmp_path / "speakers", speakers=1) / "speaker-0"
    images = tmp_path / "images"
    (images / "class").mkdir(parents=True)
    (images / "class" / "1.PNG").write_bytes(b"")
    with pytest.raises(UserError, match="images, but the model reads text; expected a folder"):
        check_kind(images, "text")
    with pytest.raises(UserError, match="text, but the model sees images; expected a folder of images"):
        check_kind(texts, "image")
    (texts / "photo.png").write_bytes(b"")
    for path, task in ((images, "image"), (texts, "text"), (texts, "image"), (tmp_path / "none", "text")):
        check_kind(path, task)
