from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnpm.service.inference.answer import Answer, GivenTurn, Options
from nnpm.service.inference.audio.waveform import AudioInfo, Recording, Waveform
from nnpm.service.inference.errors import ParameterError, TurnsError
from nnpm.service.inference.recognizer import Recognizer
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import (
    LABELS,
    WIDTH,
    embed,
    expected_probabilities,
    tiny_card,
    tiny_head,
    tiny_memory,
    write_tiny_bundle,
)

RATE = 16_000
MARGIN_S = 0.05
FRAME_S = 0.02

Make = Callable[..., Recognizer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a recognizer with these values in its card's decision."""

    def recognizer(**decision: Any) -> Recognizer:
        changed = tiny_card().decision.model_copy(update=decision)
        return Recognizer(write_tiny_bundle(tmp_path / "bundle", decision=changed))

    return recognizer


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return Recognizer(write_tiny_bundle(tmp_path_factory.mktemp("recognizer") / "bundle"))


def recording(*channels: np.ndarray, clipped_ratio: float = 0.0) -> Recording:
    waveforms = tuple(Waveform(channel.astype(np.float32)) for channel in channels)
    info = AudioInfo(
        duration_s=waveforms[0].duration_s,
        sample_rate_hz=RATE,
        channels=len(channels),
        format="WAV",
        clipped_ratio=clipped_ratio,
    )
    return Recording(info, waveforms)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE))


def syllables(seconds: float, seed: int = 0) -> np.ndarray:
    """Speech from the first sample to the last."""
    samples = speechlike(seconds, seed=seed)
    burst = 0.2 * np.sin(np.arange(640) * 0.2)
    samples[:640] += burst
    samples[-640:] += burst
    return samples


def project(samples: np.ndarray) -> np.ndarray:
    """The projection of one window, in numpy."""
    head = tiny_head()
    samples = np.pad(samples.astype(np.float32), (0, max(0, 512 - len(samples))))
    projected = head.weight @ ((embed(samples) - head.mean) / head.deviation) + head.bias
    return projected / np.linalg.norm(projected)


def vote_by_hand(samples: np.ndarray) -> np.ndarray:
    """The vote of one window, by loops: of a prototype per emotion, corpus and speaker."""
    memory, head = tiny_memory(), tiny_head()
    slots = head.project(memory.features)
    whose = list(zip(memory.emotion.tolist(), memory.corpus, memory.speaker, strict=True))
    similarities: dict[int, list[float]] = {}
    for one in sorted(set(whose)):
        mean = np.mean([slots[i] for i, other in enumerate(whose) if other == one], axis=0)
        cosine = float(mean @ project(samples) / np.linalg.norm(mean))
        similarities.setdefault(one[0], []).append(cosine)
    nearest = [np.mean(sorted(similarities[label])[-5:]) for label in range(len(LABELS))]
    powers = np.exp(np.array(nearest) / 0.2)
    return powers / powers.sum()


def scores_by_hand(samples: np.ndarray) -> np.ndarray:
    """Classifier and vote of one window."""
    samples = np.pad(samples.astype(np.float32), (0, max(0, 512 - len(samples))))
    return 0.7 * expected_probabilities(samples) + 0.3 * vote_by_hand(samples)


def scores(answer: Answer) -> list[float]:
    assert list(answer.scores) == list(LABELS)
    return list(answer.scores.values())


@pytest.mark.parametrize("num_samples", [1_600, 511, 512, 4_799, 48_000])
def test_one_window_is_classifier_and_vote(recognizer: Recognizer, num_samples: int) -> None:
    samples = syllables(4)[:num_samples]
    found = recognizer.score(samples.astype(np.float32))
    assert found.embedding.shape == (WIDTH,)
    np.testing.assert_allclose(found.probabilities, scores_by_hand(samples), atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_without_vote_and_by_vote_alone(make: Make, weight: float) -> None:
    samples = syllables(1).astype(np.float32)
    found = make(vote_weight=weight).score(samples).probabilities
    expected = vote_by_hand(samples) if weight else expected_probabilities(samples)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_biases_are_added_before_each_softmax(make: Make) -> None:
    samples = syllables(1).astype(np.float32)
    bias = (1.0, -0.5, 0.0, 2.0)
    found = make(vote_weight=0.0, logit_bias=bias).score(samples).probabilities
    powers = expected_probabilities(samples) * np.exp(bias)
    np.testing.assert_allclose(found, powers / powers.sum(), atol=1e-6)


def test_a_short_clip_is_one_segment(recognizer: Recognizer) -> None:
    samples = syllables(1.5)
    answer = recognizer.answer(recording(samples))
    np.testing.assert_allclose(scores(answer), scores_by_hand(samples), atol=1e-5)
    assert answer.emotion == LABELS[int(np.argmax(scores_by_hand(samples)))]
    assert answer.confidence == max(answer.scores.values())
    assert not answer.abstained
    assert answer.reasons == answer.per_channel == answer.neighbours == ()
    assert answer.speech_ratio > 0.5
    assert answer.inference_ms > 0
    (segment,) = answer.segments
    assert (segment.start_s, segment.end_s, segment.channel) == (0.0, 1.5, 0)
    assert (segment.emotion, segment.scores) == (answer.emotion, answer.scores)


def test_a_long_clip_is_the_mean_of_its_windows(recognizer: Recognizer) -> None:
    samples = syllables(6.5)
    answer = recognizer.answer(recording(samples), Options(window_s=2, hop_s=1.5))
    cuts = [(0.0, 2.0), (1.5, 3.5), (3.0, 5.0), (4.5, 6.5)]
    assert [(one.start_s, one.end_s) for one in answer.segments] == cuts
    by_hand = [scores_by_hand(samples[round(a * RATE) : round(b * RATE)]) for a, b in cuts]
    for segment, expected in zip(answer.segments, by_hand, strict=True):
        np.testing.assert_allclose(list(segment.scores.values()), expected, atol=1e-5)
    np.testing.assert_allclose(scores(answer), np.mean(by_hand, axis=0), atol=1e-5)


def test_a_longer_last_window_counts_for_more(recognizer: Recognizer) -> None:
    samples = syllables(4.5)
    answer = recognizer.answer(recording(samples), Options(window_s=2, hop_s=2))
    cuts = [(0.0, 2.0), (2.0, 4.5)]
    assert [(one.start_s, one.end_s) for one in answer.segments] == cuts
    by_hand = [scores_by_hand(samples[round(a * RATE) : round(b * RATE)]) for a, b in cuts]
    expected = np.average(by_hand, axis=0, weights=[2, 2.5])
    np.testing.assert_allclose(scores(answer), expected, atol=1e-5)


@pytest.mark.parametrize("lead_s", [0.0, 1.0, 2.34])
def test_times_are_those_of_the_recording(recognizer: Recognizer, lead_s: float) -> None:
    samples = np.concatenate([silence(lead_s), syllables(5), silence(1.0)])
    answer = recognizer.answer(recording(samples), Options(window_s=2, hop_s=1))
    first, last = answer.segments[0], answer.segments[-1]
    assert first.start_s == pytest.approx(max(0, lead_s - MARGIN_S), abs=FRAME_S)
    assert last.end_s == pytest.approx(lead_s + 5 + MARGIN_S, abs=FRAME_S)
    for segment in answer.segments:
        clip = samples[round(segment.start_s * RATE) : round(segment.end_s * RATE)]
        np.testing.assert_allclose(list(segment.scores.values()), scores_by_hand(clip), atol=1e-5)


def test_silence_at_the_edges_changes_nothing(recognizer: Recognizer) -> None:
    speech = np.concatenate([silence(0.06), syllables(1), silence(0.06)])
    padded = np.concatenate([silence(2), speech, silence(7)])
    bare, answer = recognizer.answer(recording(speech)), recognizer.answer(recording(padded))
    assert len(answer.segments) == 1
    np.testing.assert_allclose(scores(answer), scores(bare), atol=0.02)


def test_silence_between_counts_for_nothing(recognizer: Recognizer) -> None:
    samples = np.concatenate([syllables(2), silence(6), syllables(2, seed=1)])
    answer = recognizer.answer(recording(samples), Options(window_s=2, hop_s=2))
    reasons = [segment.reasons for segment in answer.segments]
    assert reasons == [(), ("no_speech",), ("no_speech",), ("no_speech",), ()]
    assert [segment.emotion is None for segment in answer.segments] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert answer.reasons == ()
    speaking = [scores_by_hand(samples[: 2 * RATE]), scores_by_hand(samples[8 * RATE :])]
    np.testing.assert_allclose(scores(answer), np.mean(speaking, axis=0), atol=1e-5)


@pytest.fixture
def count_scored(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the windows that the model was asked for."""
    scored: list[int] = []
    score = recognizer.model.score

    def counted(waveform: np.ndarray) -> Any:
        scored.append(len(waveform))
        return score(waveform)

    monkeypatch.setattr(recognizer.model, "score", counted)
    return scored


def test_windows_without_speech_are_not_scored(
    recognizer: Recognizer, count_scored: list[int]
) -> None:
    samples = np.concatenate([syllables(4), silence(60), syllables(4, seed=1)])
    options = Options(window_s=2, hop_s=2)
    answer = recognizer.answer(recording(samples), options)
    assert count_scored == [2 * RATE] * 4
    silent = [one for one in answer.segments if one.reasons]
    assert len(silent) == 30
    for one in silent:
        assert one.reasons == ("no_speech",)
        assert set(one.scores.values()) == {0.25}
    few = recognizer.answer(recording(samples), replace(options, emotions=("sad", "calm")))
    assert few.segments[5].scores == {"angry": 0, "calm": 0.5, "happy": 0, "sad": 0.5}
    assert [(one.start_s, one.end_s) for one in answer.timeline if one.reasons] == [(4, 64)]


def test_where_answers_are_forced_all_windows_are_scored(
    recognizer: Recognizer, count_scored: list[int]
) -> None:
    samples = np.concatenate([syllables(4), silence(60), syllables(4, seed=1)])
    options = Options(window_s=2, hop_s=2)
    free = recognizer.answer(recording(samples), options)
    count_scored.clear()
    forced = recognizer.answer(recording(samples), replace(options, abstain=False))
    assert len(count_scored) == 34
    assert all(one.emotion for one in forced.segments)
    assert forced.scores == free.scores


@pytest.mark.parametrize("abstain", [True, False])
def test_an_hour_of_silence_is_one_segment(
    recognizer: Recognizer, count_scored: list[int], abstain: bool
) -> None:
    answer = recognizer.answer(recording(silence(3600)), Options(abstain=abstain))
    assert answer.reasons == ("no_speech",)
    assert answer.speech_ratio == 0
    assert [(one.start_s, one.end_s) for one in answer.segments] == [(0, 3)]
    assert len(count_scored) == 1


@pytest.mark.parametrize("abstain", [True, False])
def test_an_hour_of_silent_windows_takes_no_time(
    recognizer: Recognizer, count_scored: list[int], abstain: bool
) -> None:
    samples = silence(3600 if abstain else 60)
    options = Options(abstain=abstain, segments="windows")
    answer = recognizer.answer(recording(samples), options)
    assert answer.reasons == ("no_speech",)
    assert len(count_scored) == (8 if abstain else len(answer.segments))
    short = recognizer.answer(recording(samples[: round(13.5 * RATE)]), options)
    assert len(short.segments) == 8
    assert short.scores == answer.scores


def test_a_second_of_speech_in_an_hour_is_found(
    recognizer: Recognizer, count_scored: list[int]
) -> None:
    samples = silence(3600)
    samples[1800 * RATE : 1801 * RATE + 8_000] = syllables(1.5)
    answer = recognizer.answer(recording(samples))
    assert answer.reasons == ()
    assert 1799.9 < answer.segments[0].start_s < answer.segments[-1].end_s < 1801.6
    assert len(count_scored) == 1


def test_noise_with_clicks_is_no_speech(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(0)
    samples = 1e-3 * rng.standard_normal(60 * RATE)
    samples[: 12 * 320 : 320] = 0.9  # as a whole modulated, though no window of it is
    samples = np.concatenate([samples, 1e-3 * rng.standard_normal(240 * RATE)])
    answer = recognizer.answer(recording(samples))
    assert ("no_speech" in answer.reasons) is all(
        "no_speech" in one.reasons for one in answer.segments
    )


REASONS = {
    "no_speech": (recording(silence(1)), {}),
    "too_short": (recording(syllables(0.29)), {}),
    "clipped": (recording(syllables(1), clipped_ratio=0.05), {}),
    "low_confidence": (recording(syllables(1)), {"low_confidence": 0.99}),
    "out_of_domain": (recording(syllables(1)), {"out_of_domain": 0.5, "domain_midpoint": 2.0}),
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_abstains_unless_forced(make: Make, reason: str) -> None:
    clip, decision = REASONS[reason]
    recognizer = make(**decision)
    answer = recognizer.answer(clip)
    assert answer.reasons == (reason,)
    assert answer.abstained
    assert answer.emotion is None
    assert answer.segments[0].emotion is None
    assert answer.segments[0].reasons == (reason,)
    assert sum(scores(answer)) == pytest.approx(1)
    forced = recognizer.answer(clip, Options(abstain=False))
    assert forced.reasons == (reason,)
    assert not forced.abstained
    assert forced.emotion == forced.segments[0].emotion == LABELS[int(np.argmax(scores(answer)))]
    assert forced.scores == answer.scores


def test_just_enough_is_no_reason(make: Make) -> None:
    assert make().answer(recording(syllables(0.3), clipped_ratio=0.0499)).reasons == ()


def test_reasons_add_up_in_order(make: Make) -> None:
    recognizer = make(low_confidence=1.0, out_of_domain=0.0)
    answer = recognizer.answer(recording(silence(0.2), clipped_ratio=1.0))
    assert answer.reasons == (
        "no_speech", "too_short", "clipped", "low_confidence", "out_of_domain",
    )  # fmt: skip


def test_split_channels_are_answered_alone_and_together(recognizer: Recognizer) -> None:
    one, two = syllables(5), syllables(5, seed=1)
    options = Options(window_s=2, hop_s=1.5, neighbours=3)
    answer = recognizer.answer(recording(one, two), options)
    for channel, samples in enumerate((one, two)):
        found, alone = answer.per_channel[channel], recognizer.answer(recording(samples), options)
        segments = tuple(replace(segment, channel=channel) for segment in alone.segments)
        timeline = tuple(replace(entry, channel=channel) for entry in alone.timeline)
        assert found == replace(
            alone, segments=segments, timeline=timeline, inference_ms=found.inference_ms
        )
    mean = np.mean([scores(channel) for channel in answer.per_channel], axis=0)
    np.testing.assert_allclose(scores(answer), mean, atol=1e-6)
    places = [(segment.start_s, segment.channel) for segment in answer.segments]
    assert places == sorted(places)
    assert {channel for _, channel in places} == {0, 1}
    assert len(answer.neighbours) == 3


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_channel_has_no_say(recognizer: Recognizer, silent: int) -> None:
    channels = [syllables(2), syllables(2)]
    channels[silent] = silence(2)
    answer = recognizer.answer(recording(*channels), Options(neighbours=2))
    speaking = answer.per_channel[1 - silent]
    assert answer.per_channel[silent].reasons == ("no_speech",)
    assert answer.reasons == speaking.reasons == ()
    np.testing.assert_allclose(scores(answer), scores(speaking), atol=1e-7)
    assert answer.out_of_domain == speaking.out_of_domain
    assert [near.corpus for near in answer.neighbours] == [
        near.corpus for near in speaking.neighbours
    ]
    assert answer.speech_ratio == pytest.approx(speaking.speech_ratio / 2)


def test_silence_on_all_channels_is_no_speech(recognizer: Recognizer) -> None:
    answer = recognizer.answer(recording(silence(1), silence(1)))
    assert answer.reasons == ("no_speech",)
    assert answer.emotion is None
    assert sum(scores(answer)) == pytest.approx(1)


def test_only_allowed_emotions_are_answered(recognizer: Recognizer) -> None:
    clip = recording(syllables(5))
    free = recognizer.answer(clip)
    for allowed in (("sad",), ("happy", "calm"), LABELS):
        answer = recognizer.answer(clip, Options(emotions=allowed))
        assert answer.emotion in allowed
        assert sum(scores(answer)) == pytest.approx(1)
        assert all(score == 0 for name, score in answer.scores.items() if name not in allowed)
        for found, segment in zip(answer.segments, free.segments, strict=True):
            total = sum(segment.scores[name] for name in allowed)
            for name in allowed:
                assert found.scores[name] == pytest.approx(segment.scores[name] / total, abs=1e-5)


def test_the_bundles_own_set_of_answers_is_the_default(tmp_path: Path) -> None:
    own = Recognizer(write_tiny_bundle(tmp_path / "bundle", emotions=("sad", "happy")))
    clip = recording(syllables(2))
    answer = own.answer(clip)
    assert answer.emotion in ("sad", "happy")
    assert answer.scores["angry"] == answer.scores["calm"] == 0
    assert answer.scores == own.answer(clip, Options(emotions=("happy", "sad"))).scores
    free = own.answer(clip, Options(emotions=LABELS))
    assert min(free.scores.values()) > 0


def test_neighbours_are_those_of_the_mean_embedding(recognizer: Recognizer) -> None:
    memory = tiny_memory()
    one, two = syllables(2), syllables(2, seed=1)
    head = tiny_head()
    mean = np.mean([embed(samples.astype(np.float32)) for samples in (one, two)], axis=0)
    cosines = (
        head.project(memory.features)
        @ head.project(head.standardise(mean[None].astype(np.float32)))[0]
    )
    order = np.argsort(-cosines)[:4]
    whole = recording(np.concatenate([one, two]))
    options = Options(neighbours=4, window_s=2, hop_s=2)
    found = recognizer.answer(whole, options).neighbours
    assert [near.emotion for near in found] == [LABELS[memory.emotion[slot]] for slot in order]
    np.testing.assert_allclose([near.similarity for near in found], cosines[order], atol=1e-5)


BAD_OPTIONS = [
    (Options(window_s=0.49), "window_s is 0.49; it must be between 0.5 and 10."),
    (Options(window_s=10.01), "window_s is 10.01; it must be between 0.5 and 10."),
    (Options(window_s=float("nan")), "window_s is nan; it must be between 0.5 and 10."),
    (Options(hop_s=0.09), "hop_s is 0.09; it must be between 0.1 and window_s (3)."),
    (Options(hop_s=float("nan")), "hop_s is nan; it must be between 0.1 and window_s (3)."),
    (Options(window_s=1, hop_s=1.1), "hop_s is 1.1; it must be between 0.1 and window_s (1)."),
    (Options(neighbours=-1), "neighbours is -1; it must be between 0 and 100."),
    (Options(neighbours=101), "neighbours is 101; it must be between 0 and 100."),
    (Options(emotions=()), "emotions is empty; this model knows angry, calm, happy, sad."),
    (
        Options(emotions=("sad", "bored", "fear")),
        "emotions contains bored, fear; this model knows angry, calm, happy, sad.",
    ),
]


@pytest.mark.parametrize(("options", "said"), BAD_OPTIONS)
def test_bad_options_say_what_is_wanted(
    recognizer: Recognizer, options: Options, said: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        recognizer.answer(recording(syllables(1)), options)
    assert str(caught.value) == said


def test_a_short_window_takes_a_short_hop(recognizer: Recognizer) -> None:
    answer = recognizer.answer(recording(syllables(2)), Options(window_s=0.5))
    assert len(answer.segments) == 4


@pytest.mark.parametrize("num_channels", [1, 2])
def test_there_is_an_end_to_windows(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, num_channels: int
) -> None:
    monkeypatch.setattr("nnpm.service.inference.segments._MAX_WINDOWS", 38 * num_channels)
    clip = recording(*[syllables(20)] * num_channels)
    with pytest.raises(ParameterError, match=r"at most .* are scored: take a hop of 0\.54 s"):
        recognizer.answer(clip, Options(window_s=1, hop_s=0.5))
    answer = recognizer.answer(clip, Options(window_s=1, hop_s=0.54))
    assert len(answer.segments) <= 38 * num_channels


def test_eight_threads_get_the_answers_of_one(recognizer: Recognizer) -> None:
    clip = [recording(syllables(0.5 + 0.3 * i, seed=i)) for i in range(16)]
    options = Options(window_s=1, hop_s=0.5, neighbours=3)

    def answer(one: Recording) -> Answer:
        return replace(recognizer.answer(one, options), inference_ms=0.0)

    expected = [answer(one) for one in clip]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, clip * 4)) == expected * 4


def test_a_long_recording_is_scored_by_turns(
    recognizer: Recognizer, count_scored: list[int]
) -> None:
    first, second = syllables(4), syllables(2, seed=1)
    samples = np.concatenate([silence(3), first, silence(2), second, silence(5)])
    answer = recognizer.answer(recording(samples))
    assert [round(one / RATE, 1) for one in count_scored] == pytest.approx([4.1, 2.1], abs=0.1)
    spans = [(one.start_s, one.end_s) for one in answer.segments]
    np.testing.assert_allclose(spans, [(3, 7), (9, 11)], atol=0.1)
    np.testing.assert_allclose(
        scores(answer),
        np.average(
            [list(one.scores.values()) for one in answer.segments],
            axis=0,
            weights=[end - start for start, end in spans],
        ),
        atol=1e-6,
    )
    assert answer.speech_ratio == pytest.approx(6 / 16, abs=0.02)
    assert len(answer.timeline) == 2


def test_channels_count_by_their_speech(recognizer: Recognizer) -> None:
    mine = np.concatenate([syllables(6), silence(4)])
    yours = np.concatenate([silence(7), syllables(2, seed=1), silence(1)])
    answer = recognizer.answer(recording(mine, yours))
    by_channel = np.array([scores(one) for one in answer.per_channel])
    np.testing.assert_allclose(scores(answer), by_channel.T @ [0.75, 0.25], atol=0.01)
    silent = recognizer.answer(recording(mine, silence(10)))
    assert scores(silent) == pytest.approx(scores(silent.per_channel[0]))
    assert silent.per_channel[1].reasons == ("no_speech",)


def test_given_turns_are_scored_exactly(recognizer: Recognizer, count_scored: list[int]) -> None:
    mine, yours = syllables(20), np.concatenate([silence(10), syllables(10, seed=1)])
    turns = (
        GivenTurn(1.0, 2.0, 0, "Ada"),
        GivenTurn(1.5, 3.5, 0, "Bo"),
        GivenTurn(4.0, 5.0, 1, "Cy"),
        GivenTurn(12.0, 14.0, None, "Ada"),
    )
    answer = recognizer.answer(recording(mine, yours), Options(turns=turns))
    found = [(one.start_s, one.end_s, one.channel, one.speaker) for one in answer.segments]
    assert found == [
        (1.0, 2.0, 0, "Ada"),
        (1.5, 3.5, 0, "Bo"),
        (4.0, 5.0, 1, "Cy"),
        (12.0, 14.0, 0, "Ada"),
        (12.0, 14.0, 1, "Ada"),
    ]
    assert answer.segments[2].reasons == ("no_speech",)
    names = dict(answer.per_speaker)
    assert list(names) == ["Ada", "Bo", "Cy"]
    assert names["Cy"].reasons == ("no_speech",)
    assert len(names["Ada"].segments) == 3
    mixed = recognizer.answer(recording(mine), Options(turns=(GivenTurn(0, 20.0),)))
    assert len(mixed.segments) == 1
    assert sum(count_scored[-2:]) == 20 * RATE  # a long one in pieces that the model can take


@pytest.mark.parametrize(
    "turns",
    [
        (GivenTurn(1.0, 7.0),),
        (GivenTurn(3.0, 3.0),),
        (GivenTurn(0.0, 1.0, 1),),
        tuple(GivenTurn(0.0, 6.0) for _ in range(5)),
    ],
)
def test_given_turns_have_to_fit(recognizer: Recognizer, turns: tuple[GivenTurn, ...]) -> None:
    with pytest.raises(TurnsError, match=r"turns has"):
        recognizer.answer(recording(syllables(6)), Options(turns=turns))
