"""Files of annotation tools, read back by the libraries that people read them with."""

from pathlib import Path

import pytest
import webvtt
from praatio import textgrid
from pympi.Elan import Eaf

from nnpm.service.predict.annotations import ANNOTATIONS
from nnpm.service.predict.schemas import PredictAnswer
from tests.support.answers import made_answer

MONO = made_answer([(0.5, 2.25, 0, "angry"), (2.25, 4, 0, "silence"), (4, 9.5, 0, None)])
CALL = made_answer(
    [(0, 2, 0, "angry"), (1, 3.25, 1, "happy"), (2, 4, 0, "sad")], channels=2, split=True
)
LATE = made_answer([(3661.5, 3662, 0, "sad")], duration_s=3662.25)
NOTHING = made_answer([(0, 10, 0, "silence")])
NAME = 'calls/über & "uns" 1.wav'


def written(name: str, answer: PredictAnswer, folder: Path) -> Path:
    form = ANNOTATIONS[name]
    path = folder / f"clip{form.suffix}"
    path.write_text(form.write(NAME, answer), encoding="utf-8")
    return path


def test_praat_reads_the_textgrid(tmp_path: Path) -> None:
    grid = textgrid.openTextgrid(
        str(written("textgrid", CALL, tmp_path)), includeEmptyIntervals=True, reportingMode="error"
    )
    assert grid.tierNames == ("channel 0", "channel 1")
    assert [tuple(one) for one in grid.getTier("channel 0").entries] == [
        (0, 2, "angry"), (2, 4, "sad"), (4, 10, "")
    ]  # fmt: skip
    assert [tuple(one) for one in grid.getTier("channel 1").entries] == [
        (0, 1, ""), (1, 3.25, "happy"), (3.25, 10, "")
    ]  # fmt: skip
    assert grid.maxTimestamp == 10
    mono = textgrid.openTextgrid(str(written("textgrid", MONO, tmp_path)), False)
    assert [tuple(one) for one in mono.getTier("emotion").entries] == [
        (0.5, 2.25, "angry"), (4, 9.5, "abstained")
    ]  # fmt: skip


def test_elan_reads_the_eaf(tmp_path: Path) -> None:
    document = Eaf(str(written("eaf", CALL, tmp_path)))
    assert list(document.get_tier_names()) == ["channel 0", "channel 1"]
    assert sorted(document.get_annotation_data_for_tier("channel 0")) == [
        (0, 2000, "angry"), (2000, 4000, "sad")
    ]  # fmt: skip
    assert document.get_annotation_data_for_tier("channel 1") == [(1000, 3250, "happy")]
    (media,) = document.get_linked_files()
    assert media["RELATIVE_MEDIA_URL"] == "./%C3%BCber%20%26%20%22uns%22%201.wav"
    document.to_file(str(tmp_path / "again.eaf"))
    assert Eaf(str(tmp_path / "again.eaf")).get_annotation_data_for_tier("channel 1")


def test_players_read_the_subtitles(tmp_path: Path) -> None:
    for captions in (
        webvtt.read(str(written("vtt", MONO, tmp_path))),
        webvtt.from_srt(str(written("srt", MONO, tmp_path))),
    ):
        assert [(one.start, one.end, one.text) for one in captions] == [
            ("00:00:00.500", "00:00:02.250", "angry 0.62"),
            ("00:00:04.000", "00:00:09.500", "abstained 0.62"),
        ]
    voices = webvtt.read(str(written("vtt", CALL, tmp_path)))
    assert [(one.voice, one.text) for one in voices] == [
        ("channel 0", "angry 0.62"), ("channel 1", "happy 0.62"), ("channel 0", "sad 0.62")
    ]  # fmt: skip
    named = webvtt.from_srt(str(written("srt", CALL, tmp_path)))
    assert named[1].text == "channel 1: happy 0.62"
    (late,) = webvtt.read(str(written("vtt", LATE, tmp_path)))
    assert (late.start, late.end) == ("01:01:01.500", "01:01:02.000")


def test_rttm_has_ten_fields_and_counts_channels_from_one() -> None:
    lines = [line.split() for line in ANNOTATIONS["rttm"].write(NAME, CALL).splitlines()]
    assert {len(line) for line in lines} == {10}
    assert [(kind, channel, start, length, label) for kind, _, channel, start, length, _, _, label,
            *_ in lines] == [
        ("SPEAKER", "1", "0.000", "2.000", "angry"),
        ("SPEAKER", "2", "1.000", "2.250", "happy"),
        ("SPEAKER", "1", "2.000", "2.000", "sad"),
    ]  # fmt: skip
    assert {line[1] for line in lines} == {'über_&_"uns"_1'}


def test_audacity_labels_are_separated_by_tabs() -> None:
    text = ANNOTATIONS["audacity"].write(NAME, MONO)
    assert text == "0.500000\t2.250000\tangry\n4.000000\t9.500000\tabstained\n"


def test_speakers_have_tiers_of_their_own(tmp_path: Path) -> None:
    answer = made_answer([(0, 2, 0, "angry", 'Ada "A" <b>'), (1, 3, 0, "sad", "Bo C\n")])
    grid = textgrid.openTextgrid(str(written("textgrid", answer, tmp_path)), False)
    assert [tuple(one) for one in grid.getTier("Bo C\\x0a").entries] == [(1, 3, "sad")]
    document = Eaf(str(written("eaf", answer, tmp_path)))
    assert list(document.get_tier_names()) == ['Ada "A" <b>', "Bo C\\x0a"]
    voices = webvtt.read(str(written("vtt", answer, tmp_path)))
    assert voices[1].voice == "Bo C\\x0a"
    assert voices[0].raw_text.startswith('<v Ada "A" &lt;b&gt;>angry')
    lines = ANNOTATIONS["rttm"].write(NAME, answer).splitlines()
    assert [line.split()[6:8] for line in lines] == [['Ada_"A"_<b>', "angry"], ["Bo_C\\x0a", "sad"]]
    labels = ANNOTATIONS["audacity"].write(NAME, answer).splitlines()
    assert labels[1].endswith("\tBo C\\x0a: sad")


def test_given_turns_of_one_speaker_that_overlap_give_way(tmp_path: Path) -> None:
    answer = made_answer([(0, 3, 0, "angry"), (1, 2, 0, "sad"), (2.5, 4, 0, "happy")])
    grid = textgrid.openTextgrid(str(written("textgrid", answer, tmp_path)), False)
    assert [tuple(one) for one in grid.getTier("emotion").entries] == [
        (0, 3, "angry"), (3, 4, "happy")
    ]  # fmt: skip


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_recording_without_speech_is_a_valid_file(name: str, tmp_path: Path) -> None:
    path = written(name, NOTHING, tmp_path)
    match name:
        case "textgrid":
            grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
            assert [tuple(one) for one in grid.getTier("emotion").entries] == [(0, 10, "")]
        case "eaf":
            assert Eaf(str(path)).get_annotation_data_for_tier("emotion") == []
        case "vtt":
            assert list(webvtt.read(str(path))) == []
        case _:
            assert path.read_text() == ""
