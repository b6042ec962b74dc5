"""Which reader a folder gets."""

from pathlib import Path

import pytest

from nnpm.service.inference.errors import NnpmError
from nnpm.training.corpora import CORPORA, CorpusError, load, load_folder


def test_a_manifest_comes_before_the_layout(published):
    data = published("emodb")
    (data / "emodb/metadata.csv").write_text("path,emotion\nwav/03a01Fa.wav,calm\n", "utf-8")
    (utterance,) = load("emodb", data)
    assert (utterance.emotion, utterance.corpus) == ("calm", "emodb")


def test_load_folder_is_load(published):
    data = published("nemo")
    assert load_folder(data / "nemo") == load("nemo", data)


def test_a_linked_folder_keeps_its_name(published, tmp_path: Path):
    data = published("nemo")
    (data / "nemo").rename(tmp_path / "nEMO-main")
    (data / "nemo").symlink_to(tmp_path / "nEMO-main")
    assert {each.corpus for each in load("nemo", data)} == {"nemo"}
    assert len(load("nemo", data)) == 2


def test_an_unknown_corpus_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(CorpusError, match=r"there is no .*metadata\.csv, and 'skropus'") as error:
        load("skropus", tmp_path)
    assert f"none of the {len(CORPORA)} known corpora ({', '.join(CORPORA)})" in str(error.value)
    assert str(tmp_path / "skropus" / "metadata.csv") in str(error.value)


@pytest.mark.parametrize("empty", [False, True])
def test_a_known_corpus_without_utterances(corpus_name, tmp_path: Path, empty: bool):
    if empty:
        (tmp_path / corpus_name).mkdir()
    with pytest.raises(CorpusError, match=f"0 recordings named as in {corpus_name};") as error:
        load(corpus_name, tmp_path)
    assert CORPORA[corpus_name].url in str(error.value)


def test_the_error_is_one_of_the_family():
    assert issubclass(CorpusError, NnpmError)
    assert issubclass(CorpusError, ValueError)
