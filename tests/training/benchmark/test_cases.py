"""Which clips are adapted to, and which are scored."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.benchmark import cases
from nnpm.training.benchmark.cases import PROTOCOLS
from nnpm.training.benchmark.plan import ABLATIONS, WHOLE, changed
from nnpm.training.corpora import Utterance

P2 = PROTOCOLS["P2"]


def clips(**counts: int) -> list[Utterance]:
    """So many clips of each emotion, by speakers s0 to s9 in turn."""
    return [
        Utterance(
            Path(f"/{emotion}{n}.wav"),
            "made",
            f"s{n % 10}",
            "en",
            emotion,
            gender="fm"[n % 2],
        )
        for emotion, count in counts.items()
        for n in range(count)
    ]


EVEN = clips(angry=100, fear=50, happy=100, neutral=100, sad=100)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def emotions(places: np.ndarray) -> Counter[str]:
    return Counter(EVEN[place].emotion for place in places)


def test_no_protocol_learns_from_a_test_corpus() -> None:
    assert list(PROTOCOLS) == ["P1", "P1_ravdess", "P2", "P3"]
    for protocol in PROTOCOLS.values():
        assert not set(protocol.source) & set(protocol.targets)
        assert {"urdu", "emodb", "ased", "emotiontts"} <= set(protocol.targets)
        assert set(protocol.outside) < set(protocol.targets)


def test_the_target_is_the_clips_of_four_emotions() -> None:
    (case,) = cases.main("emodb", EVEN, P2, rng())
    (part,) = case.parts
    assert emotions(part.adapt) == {"angry": 100, "happy": 100, "neutral": 100, "sad": 100}
    assert part.score.tolist() == part.adapt.tolist()


def test_ased_is_also_adapted_to_as_a_whole() -> None:
    _, case = cases.main("ased", EVEN, P2, rng())
    (part,) = case.parts
    assert len(part.adapt) == len(EVEN)
    assert "fear" not in emotions(part.score)


def test_inductive_speakers_are_disjoint() -> None:
    (case,) = cases.inductive("emodb", EVEN, P2, rng())
    scored = []
    for part in case.parts:
        adapted = {EVEN[place].speaker for place in part.adapt}
        asked = {EVEN[place].speaker for place in part.score}
        assert not adapted & asked
        assert len(adapted) == len(asked) == 5
        assert 2 <= len({s for s in adapted if int(s[1]) % 2}) <= 3  # women and men in both
        scored += part.score.tolist()
    assert sorted(scored) == cases.core_clips(EVEN).tolist()  # every clip once


def test_no_halves_of_urdu_or_of_one_speaker() -> None:
    assert cases.inductive("urdu", EVEN, P2, rng()) == []
    alone = [u for u in EVEN if u.speaker == "s0"]
    assert cases.inductive("emodb", alone, P2, rng()) == []


def test_the_curve_grows() -> None:
    found = cases.curve("emodb", EVEN, P2, rng())
    sizes = [len(case.parts[0].adapt) for case in found]
    assert sizes == [20, 50, 100, 400]  # 1000 are not there
    for small, large in pairwise(found):
        assert set(small.parts[0].adapt) < set(large.parts[0].adapt)
    assert all(len(case.parts[0].score) == 400 for case in found)


def test_shift_has_the_shares_it_says() -> None:
    found = {case.condition: case.parts[0] for case in cases.shift("emodb", EVEN, P2, rng())}
    assert len(found) == 8
    for name in ("angry", "happy", "neutral", "sad"):
        absent = emotions(found[f"no {name}"].adapt)
        assert (absent[name], sum(absent.values())) == (0, 300)
        skewed = emotions(found[f"70% {name}"].adapt)
        assert skewed[name] / sum(skewed.values()) == pytest.approx(0.7, abs=0.01)
        assert {count for e, count in skewed.items() if e != name} == {14}
        assert found[f"70% {name}"].score.tolist() == found[f"70% {name}"].adapt.tolist()


def test_every_ablation_changes_the_configuration_it_says() -> None:
    config = AdaptConfig()
    assert changed(config, ABLATIONS[WHOLE]) == config
    for name, overrides in ABLATIONS.items():
        if name != WHOLE:
            assert changed(config, overrides) != config, name
