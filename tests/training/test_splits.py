from pathlib import Path

import pytest

from nnpm.training.config import SplitConfig
from nnpm.training.corpora import Utterance
from nnpm.training.data.splits import split_speakers
from nnpm.training.errors import TrainingError


def corpus(name: str, speakers: int) -> list[Utterance]:
    return [
        Utterance(Path(f"/{name}/{s}/{e}.wav"), name, f"s{s}", "en", e, gender="fm"[s % 2])
        for s in range(speakers)
        for e in ("angry", "sad")
    ]


@pytest.mark.parametrize("seed", range(5))
def test_no_speaker_is_on_two_sides_and_genders_are_held_out_in_turn(seed: int) -> None:
    utterances = corpus("one", 24) + corpus("two", 9)
    split = split_speakers(utterances, SplitConfig(), seed)
    sides = [{(u.corpus, u.speaker) for u in side} for side in (split.train, split.held_out)]
    assert sum(map(len, sides)) == 33
    assert len(set.union(*sides)) == 33
    assert [sum(c == "one" for c, _ in side) for side in sides] == [21, 3]
    assert [sum(c == "two" for c, _ in side) for side in sides] == [8, 1]
    assert {u.gender for u in split.held_out if u.corpus == "one"} == {"f", "m"}
    assert sorted(split.train + split.held_out, key=lambda u: u.path) == sorted(
        utterances, key=lambda u: u.path
    )


def test_the_seed_decides_and_repeats() -> None:
    utterances = corpus("one", 24)
    first, again, other = (
        {u.speaker for u in split_speakers(utterances, SplitConfig(), seed).held_out}
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_corpus_of_two_speakers_is_trained_on_whole() -> None:
    split = split_speakers(corpus("one", 2) + corpus("two", 5), SplitConfig(), 0)
    assert {u.speaker for u in split.train if u.corpus == "one"} == {"s0", "s1"}


def test_without_speakers_to_hold_out_it_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match=r"no corpus has 3 or more speakers.*metadata.csv"):
        split_speakers(corpus("one", 2), SplitConfig(), 0)
