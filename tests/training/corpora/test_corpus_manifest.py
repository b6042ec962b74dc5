"""The manifest: what is read, what stands in for what is missing, and every error's message."""

import re
from pathlib import Path

import pytest

from nnpm.training.corpora import CorpusError, Utterance, load_folder
from nnpm.training.corpora.manifest import VOTES, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "clips").mkdir(parents=True)
    for name in ("a.wav", "b.wav", "clips/c.opus"):
        (folder / name).touch()
    return folder


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    manifest = folder / "metadata.csv"
    manifest.write_bytes(text.encode(encoding))
    return manifest


FULL = (
    "path,corpus,language,speaker,gender,emotion,sentence_id,seconds,source_label,mood\n"
    'clips/c.opus,düo,pt-BR,s1,f,angry,"a, b",1.5,raiva,grim\n'
    "a.wav,düo,pt-BR,s2,m,calm,7,2.5,,\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_column(folder: Path, encoding: str, newline: str):
    assert read_manifest(write(folder, FULL.replace("\n", newline), encoding)) == [
        Utterance(folder / "clips/c.opus", "düo", "s1", "pt-BR", "angry", "raiva", "f", "a, b"),
        Utterance(folder / "a.wav", "düo", "s2", "pt-BR", "calm", "", "m", "7"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "emotion,path\nsad,b.wav\n\nfear,./a.wav\n",
        "path,emotion,speaker,language,corpus,gender\nb.wav,sad,,,,\na.wav,fear\n",
    ],
    ids=["columns missing", "cells empty or missing"],
)
def test_what_is_missing_has_an_honest_default(folder: Path, text: str):
    write(folder, text)
    assert load_folder(folder) == [
        Utterance(folder / "a.wav", corpus="mine", speaker="", language="und", emotion="fear"),
        Utterance(folder / "b.wav", corpus="mine", speaker="", language="und", emotion="sad"),
    ]


def test_a_relative_manifest_gives_absolute_paths(folder: Path, monkeypatch: pytest.MonkeyPatch):
    write(folder, "path,emotion\na.wav,sad\n")
    monkeypatch.chdir(folder / "clips")
    (utterance,) = load_folder(Path(".."))
    assert (utterance.path, utterance.corpus) == (folder / "a.wav", "mine")


HEADER = "path,emotion\n"
VOCABULARY = "angry, calm, disgust, fear, happy, neutral, sad, surprise"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "M has no header: the columns path and emotion are required in line 1"),
        (
            "file,label\na.wav,sad\n",
            "M has no column path and no column emotion in its header (file, label): "
            "the columns path and emotion are required",
        ),
        (
            "path,label\na.wav,sad\n",
            "M has no column emotion in its header (path, label): "
            "the columns path and emotion are required",
        ),
        (HEADER, "M has a header and 0 clips: at least 1 is required"),
        (
            f"{HEADER}a.wav,Sad\nb.wav,\nb.wav,Sad\n",
            "M has 3 clips and no emotion that nnpm knows: its emotions are Sad (2), '' (1); "
            f"use {VOCABULARY}",
        ),
        (
            "path,emotion,gender\na.wav,sad,woman\n",
            "line 2 of M has the gender 'woman': it must be f, m or empty",
        ),
        (
            f"{HEADER}a.wav,sad\nb.wav,sad\n./a.wav,fear\n",
            "M names ./a.wav in line 2 and in line 4: remove one",
        ),
        (f"{HEADER},sad\n", "line 2 of M has an empty path: name a file"),
        (
            f"{HEADER}a.wav,sad,f\n",
            "line 2 of M has more cells than the 2 of the header: "
            "put cells with a comma into quotes",
        ),
        (
            f"{HEADER}a.wav,sad\nd.wav,sad\nclips/e.wav,sad\n",
            "2 of 3 audio files of M are missing; the first is d.wav in line 3: "
            "add them or remove their lines",
        ),
        (
            f"{HEADER}clips,sad\n",
            "1 of 1 audio files of M are missing; the first is clips in line 2",
        ),
        *(
            (
                f"{HEADER}a.wav,sad\n{path},sad\n",
                f"line 3 of M has the path {path}, outside its folder: paths are relative "
                "to the manifest, without ..",
            )
            for path in ("/a.wav", "../a.wav", "clips/../../a.wav", "C:\\a.wav", "..\\a.wav")
        ),
    ],
)
def test_errors_say_what_was_seen_and_what_is_wanted(folder: Path, text: str, message: str):
    manifest = write(folder, text)
    with pytest.raises(CorpusError, match="^" + re.escape(message.replace("M ", f"{manifest} "))):
        read_manifest(manifest)


@pytest.mark.parametrize(
    "content", [b"path,emotion\n\xff.wav,sad\n", b'path,emotion\n"a.wav,sad\n']
)
def test_what_is_not_csv_in_utf8_is_an_error(folder: Path, content: bytes):
    (folder / "metadata.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=r"metadata\.csv is not a CSV file in UTF-8: save it"):
        load_folder(folder)


def test_no_file(tmp_path: Path):
    with pytest.raises(
        CorpusError, match=r"^there is no file .*metadata\.csv: write the manifest there"
    ):
        read_manifest(tmp_path / "metadata.csv")


def test_clips_of_unknown_emotions_are_left_out_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    write(folder, f"{HEADER}a.wav,boredom\nb.wav,sad\ngone.wav,Sad\nclips/c.opus,boredom\n")
    assert [each.path for each in load_folder(folder)] == [folder / "b.wav"]
    assert caplog.messages == [
        "mine: 3 of 4 clips left out, of emotions nnpm does not know: boredom (2), Sad (1)"
    ]


def test_a_manifest_of_known_emotions_gives_no_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    read_manifest(write(folder, FULL))
    assert not caplog.records


def test_many_unknown_emotions_are_counted_in_one_short_line(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    rows = [f"{number}.wav,mood{number:02}" for number in range(12)]
    write(folder, HEADER + "\n".join(["a.wav,sad", *rows]))
    assert len(load_folder(folder)) == 1
    assert caplog.messages[0].endswith(", mood09 (1), 2 other labels")


def test_what_listeners_heard_is_read_beside_the_manifest(folder: Path):
    write(folder, "path,emotion\na.wav,sad\nb.wav,sad\nclips/c.opus,happy\n")
    votes = (
        "path,voice_vote,level\nb.wav,happy|sad,50\nclips/c.opus,bored|happy,9\nelse.wav,sad,1\n"
    )
    (folder / VOTES).write_text(votes)
    heard = {each.path.name: each.heard for each in load_folder(folder)}
    assert heard == {"a.wav": (), "b.wav": ("happy", "sad"), "c.opus": ("happy",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no header: the columns path and voice_vote are required"),
        ("path,vote\na.wav,sad\n", "has no column voice_vote in its header (path, vote)"),
        ("path,voice_vote\n", "has a header and 0 clips"),
        ("path,voice_vote\na.wav,sad,more\n", "line 2 of "),
        ("path,voice_vote\n\xff,sad\n", "is not a CSV file in UTF-8"),
    ],
)
def test_votes_that_cannot_be_read_are_one_line(folder: Path, text: str, said: str):
    write(folder, "path,emotion\na.wav,sad\n")
    (folder / VOTES).write_bytes(text.encode("latin-1"))
    with pytest.raises(CorpusError, match=re.escape(said)) as error:
        load_folder(folder)
    assert VOTES in str(error.value)


def test_a_vote_may_be_missing(folder: Path):
    write(folder, "path,emotion\na.wav,sad\n")
    (folder / VOTES).write_text("voice_vote,path\n,a.wav\nsad\n")
    assert load_folder(folder)[0].heard == ()
