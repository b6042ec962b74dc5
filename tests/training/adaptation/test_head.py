from dataclasses import replace

import numpy as np

from nnpm.service.inference.bundle import Memory
from nnpm.training.adaptation.head import Source, evenly


def test_a_large_memory_takes_part_by_an_even_comb_that_keeps_rare_emotions() -> None:
    emotion = np.repeat([0, 1, 2], [1000, 500, 7])
    emotion = np.random.default_rng(0).permutation(emotion)
    chosen = evenly(emotion, 107)
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.bincount(emotion[chosen]).tolist() == [50, 50, 7]
    for own, count in ((np.flatnonzero(emotion == e), c) for e, c in ((0, 1000), (1, 500))):
        ranks = np.searchsorted(own, chosen[np.isin(chosen, own)])
        assert (ranks[0], ranks[-1]) == (0, count - 1)
        assert np.ptp(np.diff(ranks)) <= 1
    assert np.array_equal(evenly(emotion, 1507), np.arange(1507))


def test_speakers_of_two_corpora_with_one_name_are_two() -> None:
    memory = Memory(
        np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]), ("a", "a", "b", "b"),
        ("en",) * 4, ("1", "1", "1", "2"),
    )  # fmt: skip
    source = Source.from_memory(memory)
    assert source.speaker[0] == source.speaker[1]
    assert len(set(source.speaker[1:].tolist())) == 3


def test_labels_can_be_hidden(problem) -> None:
    known = replace(problem.target, labelled=np.array([4, 7, 9]), emotion=np.array([0, 1, 2]))
    fewer = known.without_labels(np.array([1]))
    assert (fewer.labelled.tolist(), fewer.emotion.tolist()) == ([4, 9], [0, 2])
    assert len(known.without_labels().labelled) == 0
    assert known.open(4).all()
    assert replace(known, occurs=(1,)).open(4).tolist() == [False, True, False, False]
