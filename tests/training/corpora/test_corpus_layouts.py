"""One contract over all corpora, then what single ones do on purpose."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nnpm.service.inference.card import EMOTIONS
from nnpm.training.corpora import CORPORA, CorpusError, load
from nnpm.training.corpora.iemocap import read as read_iemocap

Published = Callable[[str], Path]


def test_every_field_is_read_from_the_published_layout(corpus_name, published, expected):
    data = published(corpus_name)
    read = {
        each.path.relative_to(data / corpus_name).as_posix(): (
            *(each.speaker, each.gender, each.emotion, each.raw_label, each.sentence_id),
        )
        for each in load(corpus_name, data)
    }
    assert read == {path: fields for path, fields in expected.items() if fields is not None}


def test_contract(corpus_name, published, monkeypatch):
    data = published(corpus_name)
    corpus = CORPORA[corpus_name]
    monkeypatch.chdir(data.parent)
    utterances = load(corpus_name, Path(data.name))
    paths = [each.path for each in utterances]
    assert paths == sorted(paths)
    assert all(path.is_absolute() and path.is_file() for path in paths)
    assert utterances == load(corpus_name, data)
    assert {each.emotion for each in utterances} <= set(EMOTIONS)
    assert {each.corpus for each in utterances} == {corpus_name} == {corpus.name}
    assert {each.language for each in utterances} == {corpus.language}
    assert len({each.speaker for each in utterances}) > 1
    assert all(each.speaker and each.raw_label for each in utterances)
    assert min(map(len, (corpus.licence, corpus.citation, corpus.url))) > 0


def test_the_contract_covers_all_corpora(corpora_with_layouts: set[str]):
    assert corpora_with_layouts == set(CORPORA)


@pytest.mark.parametrize("name", sorted(CORPORA.keys() - {"iemocap"}))  # its test is below
def test_audio_that_is_not_named_as_published_is_an_error(published: Published, name: str):
    data = published(name)
    (data / name / "my take.WAV").touch()
    with pytest.raises(CorpusError, match=r"^1 of \d+ audio files .*my take\.WAV") as error:
        load(name, data)
    assert f"named as in {name}" in str(error.value)


def test_an_unknown_label_is_an_error_and_not_left_out(published: Published):
    data = published("emodb")
    (data / "emodb/wav/03a01Xa.wav").touch()
    with pytest.raises(CorpusError, match=r"1 of 7 audio files .*first is wav/03a01Xa\.wav"):
        load("emodb", data)


@pytest.mark.parametrize("copy", ["wav/03a01Fa.flac", "again/wav/03a01Fa.wav"])
def test_a_recording_that_is_there_twice_is_an_error(published: Published, copy: str):
    data = published("emodb")
    (data / "emodb" / copy).parent.mkdir(parents=True, exist_ok=True)
    (data / "emodb" / copy).touch()
    with pytest.raises(CorpusError, match="2 files of one recording") as error:
        load("emodb", data)
    assert copy in str(error.value)
    assert "wav/03a01Fa.wav" in str(error.value)


def test_emotiontts_numbers_beyond_the_four_hundreds_are_an_error(published: Published):
    data = published("emotiontts")
    (data / "emotiontts/ema00401.wav").touch()
    with pytest.raises(CorpusError, match=r"1 of 6 audio files .*ema00401\.wav"):
        load("emotiontts", data)


def test_crema_without_demographics_has_no_gender(published: Published):
    data = published("crema")
    (data / "crema/VideoDemographics.csv").unlink()
    assert {each.gender for each in load("crema", data)} == {""}


def test_iemocap_excited_is_happy_only_when_asked(published: Published):
    folder = published("iemocap") / "iemocap"
    asked = {each.path.stem: each for each in read_iemocap(folder, excited_is_happy=True)}
    default = {each.path.stem for each in read_iemocap(folder)}
    assert asked.keys() - default == {"Ses01F_impro01_M004"}
    excited = asked["Ses01F_impro01_M004"]
    assert (excited.emotion, excited.raw_label) == ("happy", "exc")


def test_iemocap_in_the_folder_of_its_archive(published: Published):
    data = published("iemocap")
    (data / "iemocap").rename(data / "IEMOCAP_full_release")
    (data / "iemocap").mkdir()
    (data / "IEMOCAP_full_release").rename(data / "iemocap/IEMOCAP_full_release")
    assert len(load("iemocap", data)) == 3


def test_iemocap_turns_and_recordings_match_one_to_one(published: Published):
    data = published("iemocap")
    wav = data / "iemocap/Session1/sentences/wav/Ses01F_impro01"
    (wav / "Ses01F_impro01_M003.wav").rename(wav / "Ses01F_impro01_M009.wav")
    with pytest.raises(CorpusError, match=r"5 evaluated turns and 5 recordings, of which 2 .*M003"):
        load("iemocap", data)


def test_iemocap_unknown_label_is_an_error(published: Published):
    data = published("iemocap")
    evaluation = data / "iemocap/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    evaluation.write_text(evaluation.read_text("utf-8").replace("\tang\t", "\tbor\t"), "utf-8")
    with pytest.raises(CorpusError, match=r"'Ses01F_impro01_M003' with label 'bor' .* ang, dis"):
        load("iemocap", data)
