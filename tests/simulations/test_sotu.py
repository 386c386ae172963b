import base64
import hashlib
import io
import tarfile

import pytest

from personalization.errors import UserError
from simulations import sotu
from simulations.sotu import checked, read_speeches, write_speakers


def archive(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as package:
        for name, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))
    return packed.getvalue()


FILES = {
    "package/sotu/data/1801_ann_b_r.txt": "one two three",
    "package/sotu/data/1802_ann_b_r.txt": "four five",
    "package/sotu/data/1803_carl_d.txt": "many words of one speech",
    "package/sotu/data/../../evil.txt": "x",
    "package/other/data/1801_ann_b_r.txt": "not a speech",
    "package/sotu/lib/party.json": "{}",
}


def test_only_speeches_are_read_by_speaker_and_year():
    speeches = read_speeches(archive(FILES))
    assert speeches == {
        "ann_b": {"1801": "one two three", "1802": "four five"},
        "carl": {"1803": "many words of one speech"},
    }


def test_speakers_of_enough_words_and_speeches_get_a_folder(tmp_path):
    speeches = read_speeches(archive(FILES))
    out = tmp_path / "speakers"
    assert write_speakers(speeches, out, words=5) == 1
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.txt")) == ["ann_b/1801.txt", "ann_b/1802.txt"]
    with pytest.raises(UserError, match="no speaker of 6 words"):
        write_speakers(speeches, out, words=6)
    (out / "notes.md").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        write_speakers(speeches, out, words=5)


def test_an_archive_that_is_not_the_one_meant_is_refused(monkeypatch):
    data = archive(FILES)
    with pytest.raises(UserError, match="its SHA-512 is another"):
        checked(data, "here")
    monkeypatch.setattr(sotu, "SHA512", base64.b64encode(hashlib.sha512(data).digest()).decode())
    assert checked(data, "here") == data


def test_an_archive_that_can_not_be_read_is_named():
    with pytest.raises(UserError, match="can't be read"):
        read_speeches(b"not an archive")
    with pytest.raises(UserError, match="holds no speeches"):
        read_speeches(archive({"package/readme": "x"}))
