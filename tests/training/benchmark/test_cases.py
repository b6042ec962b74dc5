"""Which clips are adapted to, and which are scored."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.benchmark import cases
from nnpm.training.benchmark.cases import DEGRADATIONS, PROTOCOLS, TEST, degrade
from nnpm.training.benchmark.estimator import development_sets
from nnpm.training.benchmark.plan import ABLATIONS, WHOLE, changed
from nnpm.training.bundle.parts import voice
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


def test_no_protocol_learns_from_a_test_corpus_or_chooses_by_one() -> None:
    assert set(PROTOCOLS) >= {"P1", "P2", "P3", "open", "without_nemo"}
    for protocol in PROTOCOLS.values():
        assert protocol.targets == TEST
        assert not set(TEST) & {*protocol.source, *protocol.development}
        assert "hindi" not in protocol.source


def test_a_left_out_corpus_is_for_development() -> None:
    for name in PROTOCOLS["P3"].source:
        without = PROTOCOLS[f"without_{name}"]
        assert {*without.source, name} == set(PROTOCOLS["P3"].source)
        assert name in without.development


def test_make_trains_the_networks_of_the_protocols() -> None:
    text = (Path(__file__).parents[3] / "Makefile").read_text("utf-8")
    sources = dict(re.findall(r"^SOURCE_(\w+) := (.*)$", text, re.MULTILINE))
    assert {name: tuple(source.split()) for name, source in sources.items()} == {
        name: protocol.source for name, protocol in PROTOCOLS.items()
    }
    (trained,) = re.findall(r"^NETWORK_SET \?= ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    names = trained.replace("\\", " ").split()
    assert {name.rsplit("-", 1)[0] for name in names} == set(PROTOCOLS)
    assert Counter(name.rsplit("-", 1)[0] for name in names)["P3"] == 3


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


def test_few_clips_grow() -> None:
    found = cases.curve("emodb", EVEN, P2, rng())
    sizes = [len(case.parts[0].adapt) for case in found]
    assert sizes == [20, 50, 100, 400]
    for small, large in pairwise(found):
        assert set(small.parts[0].adapt) < set(large.parts[0].adapt)
    assert all(len(case.parts[0].score) == 400 for case in found)


def test_no_labelled_clip_is_scored() -> None:
    found = cases.labels("emodb", EVEN, P2, rng())
    assert [len(case.parts[0].labelled) for case in found] == [0, 10, 20, 50, 100]
    for case in found:
        (part,) = case.parts
        assert len(part.adapt) == 400
        assert len(part.score) == 300
        assert not set(part.score) & set(part.labelled)
    assert cases.labels("emodb", EVEN[:150], P2, rng()) == []  # too few would be left


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


def test_a_rare_emotion_limits_the_others() -> None:
    few = clips(angry=100, happy=7, neutral=100, sad=100)
    found = {case.condition: case.parts[0] for case in cases.shift("emodb", few, P2, rng())}
    counts = Counter(few[place].emotion for place in found["70% angry"].adapt)
    assert counts == {"angry": 49, "happy": 7, "neutral": 7, "sad": 7}


def test_a_development_corpus_makes_many_sets() -> None:
    found = development_sets(EVEN, rng())
    assert len(found) == len(DEGRADATIONS) * (1 + 8 + 2)
    assert len({case.condition for case in found}) == len(found)
    for case in found:
        (part,) = case.parts
        assert part.adapt.tolist() == part.score.tolist()


def test_every_ablation_changes_the_configuration_it_says() -> None:
    config = AdaptConfig()
    assert changed(config, ABLATIONS[WHOLE]) == config
    for name, overrides in ABLATIONS.items():
        if name != WHOLE:
            assert changed(config, overrides) != config, name


def test_degradations_are_audible_and_repeatable() -> None:
    clip = voice(200.0, 1.0, seed=0)
    assert np.array_equal(degrade(clip, "recorded"), clip)
    for kind in ("telephone", "noise", "room"):
        changed_clip = degrade(clip, kind)
        assert len(changed_clip) == len(clip)
        assert np.abs(changed_clip - clip).max() > 0.01
        assert np.array_equal(degrade(clip, kind), changed_clip)
    added = degrade(clip, "noise") - clip
    assert 10 * np.log10(np.mean(clip**2) / np.mean(added**2)) == pytest.approx(10, abs=0.1)
    power = np.abs(np.fft.rfft(degrade(clip, "telephone"))) ** 2
    assert power[4_000:].sum() < 1e-6 * power.sum()
