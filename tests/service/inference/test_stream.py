"""A stream beside the same recording as a whole."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from nnpm.service.inference.answer import Answer, Options, Segment
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.inference.errors import AudioTooLongError, AudioTooShortError, ParameterError
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.inference.stream import Stream, open_stream
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import write_tiny_bundle

WINDOWS = Options(segments="windows")
NOTHING = np.zeros((0, 1), np.int16)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return Recognizer(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "1"))


def pcm(samples: np.ndarray) -> np.ndarray:
    """16-bit, shape (frames, channels)."""
    frames = samples if samples.ndim == 2 else samples[:, None]
    found: np.ndarray = np.round(np.clip(frames, -1, 1) * 32767).astype(np.int16)
    return found


def feed(stream: Stream, frames: np.ndarray, block: int) -> Iterator[Segment]:
    for start in range(0, len(frames), block):
        segment = stream.push(frames[start : start + block])
        while segment is not None:
            yield segment
            segment = stream.push(frames[:0])


def streamed(
    recognizer: Recognizer,
    frames: np.ndarray,
    *,
    rate: int = 16_000,
    block: int = 320,
    options: Options | None = None,
) -> tuple[list[Segment], Answer]:
    stream = open_stream(
        recognizer,
        rate_hz=rate,
        channels=frames.shape[1],
        options=WINDOWS if options is None else options,
    )
    return list(feed(stream, frames, block)), stream.finish()


def whole(
    recognizer: Recognizer,
    frames: np.ndarray,
    *,
    rate: int = 16_000,
    options: Options | None = None,
) -> Answer:
    recording = decode(encode(frames, rate, subtype="PCM_16"))
    return recognizer.answer(recording, options or WINDOWS)


def talk(*parts: float, seed: int = 0) -> np.ndarray:
    """Speech of so many seconds; a negative number is silence."""
    return np.concatenate(
        [
            speechlike(part, seed=seed + n) if part > 0 else np.zeros(round(-part * 16_000))
            for n, part in enumerate(parts)
        ]
    )


def assert_alike(one: Answer, other: Answer, tolerance: float = 1e-5) -> None:
    assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=tolerance)
    assert one.reasons == other.reasons
    assert one.out_of_domain == pytest.approx(other.out_of_domain, abs=tolerance)
    if tolerance < 1e-3:
        assert one.speech_ratio == pytest.approx(other.speech_ratio)
        assert [(s.start_s, s.end_s) for s in one.segments] == [
            (s.start_s, s.end_s) for s in other.segments
        ]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_short_stream_is_answered_like_the_recording(
    recognizer: Recognizer, rate: int, num_channels: int
) -> None:
    channels = [speechlike(2.5, rate, seed=n) for n in range(num_channels)]
    frames = pcm(np.stack(channels, axis=1))
    _, answer = streamed(recognizer, frames, rate=rate, block=rate // 50)
    assert_alike(answer, whole(recognizer, frames, rate=rate))


LONG = {
    "just speech": (9.3,),
    "a window and a bit": (3.4,),
    "two windows": (6.0,),
    "silence before": (-2.3, 8.0),
    "much silence before": (-14.2, 8.0),
    "silence after": (8.0, -2.0),
    "much silence after": (8.0, -17.0),
    "one word, then silence": (1.2, -11.0),
    "silence around a word": (-6.6, 1.2, -11.0),
    "a pause": (5.0, -2.0, 5.0),
    "a long pause": (5.0, -12.0, 5.0),
    "a long pause and a word at the end": (5.0, -12.0, 0.8),
    "pauses": (-4.0, 2.0, -5.0, 3.3, -1.0, 4.0, -13.0, 2.0, -7.0),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("hop_s", [None, 0.7, 3.0])
def test_a_long_stream_is_answered_like_the_recording(
    recognizer: Recognizer, name: str, hop_s: float | None
) -> None:
    """The windows are the same ones, but for those that hang over the edge of a pause."""
    frames, options = pcm(talk(*LONG[name])), Options(hop_s=hop_s, segments="windows")
    _, answer = streamed(recognizer, frames, options=options)
    expected = whole(recognizer, frames, options=options)
    assert_alike(answer, expected, tolerance=0.01)
    assert answer.speech_ratio == pytest.approx(expected.speech_ratio, abs=0.15)
    for index in (0, -1):
        ours, theirs = answer.segments[index], expected.segments[index]
        assert ours.start_s == pytest.approx(theirs.start_s, abs=0.3)
        assert ours.end_s == pytest.approx(theirs.end_s, abs=0.4)
    assert len(answer.segments) == len(expected.segments)


@pytest.mark.parametrize("block", [1, 7, 500, 4_000, 100_000])
def test_how_it_is_cut_into_messages_makes_no_difference(
    recognizer: Recognizer, block: int
) -> None:
    frames = pcm(talk(-1.0, 4.0, -2.0, 3.0)[: 16_000 if block == 1 else None])
    assert streamed(recognizer, frames, block=block) == streamed(recognizer, frames, block=320)


@pytest.mark.parametrize(("window_s", "hop_s"), [(2.0, 0.5), (2.0, 2.0), (1.0, 0.7), (0.5, 0.1)])
def test_there_is_a_segment_every_hop(
    recognizer: Recognizer, window_s: float, hop_s: float
) -> None:
    options = Options(window_s=window_s, hop_s=hop_s)
    segments, _ = streamed(recognizer, pcm(talk(6.0)), options=options)
    ends = [segment.end_s for segment in segments]
    assert ends[0] <= hop_s + 0.3
    assert np.diff(ends) == pytest.approx(np.full(len(ends) - 1, hop_s))
    assert ends[-1] > 6 - hop_s - 1e-6
    lengths = [segment.end_s - segment.start_s for segment in segments]
    assert max(lengths) == pytest.approx(window_s)
    assert min(lengths) >= 0.3 - 1e-6


def test_segments_do_not_wait_for_the_end(recognizer: Recognizer) -> None:
    frames, options = pcm(talk(5.0)), Options(window_s=1, hop_s=0.5)
    stream = open_stream(recognizer, rate_hz=16_000, channels=1, options=options)
    for start in range(0, len(frames), 160):
        needed = stream.frames_needed
        segment = stream.push(frames[start : start + 160])
        assert (segment is not None) == (needed <= 160)
        if segment is not None:
            assert start <= segment.end_s * 16_000 <= start + 160


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampling_holds_little_back(recognizer: Recognizer, rate: int) -> None:
    """A segment comes at most 30 ms of audio after its end."""
    stream = open_stream(
        recognizer, rate_hz=rate, channels=1, options=Options(window_s=1, hop_s=0.5)
    )
    frames, step = pcm(speechlike(6, rate)), rate // 100
    late_s = [
        (start + step) / rate - segment.end_s
        for start in range(0, len(frames), step)
        if (segment := stream.push(frames[start : start + step])) is not None
    ]
    assert len(late_s) >= 10
    assert max(late_s) < 0.03


def test_silence_has_no_speech(recognizer: Recognizer) -> None:
    frames = pcm(np.zeros(16_000 * 20))
    segments, answer = streamed(recognizer, frames)
    assert answer.reasons == ("no_speech",)
    assert all(segment.reasons == ("no_speech",) for segment in segments)
    assert answer.speech_ratio == 0
    assert sum(answer.scores.values()) == pytest.approx(1)


def test_clipping_is_a_reason(recognizer: Recognizer) -> None:
    frames = pcm(np.clip(20 * talk(4.0), -1, 1))
    _, answer = streamed(recognizer, frames)
    assert "clipped" in answer.reasons
    assert_alike(answer, whole(recognizer, frames), tolerance=0.01)


@pytest.mark.parametrize("num_frames", [0, 1, 1_599])
def test_next_to_nothing_is_no_stream(recognizer: Recognizer, num_frames: int) -> None:
    stream = open_stream(recognizer, rate_hz=16_000, channels=1, options=WINDOWS)
    stream.push(pcm(talk(1.0))[:num_frames])
    with pytest.raises(AudioTooShortError, match=r"at least 0\.1 s"):
        stream.finish()


def test_a_fifth_of_a_second_is_too_short_to_tell(recognizer: Recognizer) -> None:
    frames = pcm(talk(0.2))
    _, answer = streamed(recognizer, frames)
    assert "too_short" in answer.reasons
    assert_alike(answer, whole(recognizer, frames))


def test_more_than_the_limit_is_refused(recognizer: Recognizer) -> None:
    stream = open_stream(recognizer, rate_hz=8_000, channels=1, limits=Limits(max_duration_s=2))
    stream.push(NOTHING.repeat(1, axis=0))
    stream.push(np.zeros((16_000, 1), np.int16))
    with pytest.raises(AudioTooLongError, match="at most 2 s"):
        stream.push(np.zeros((1, 1), np.int16))


def test_options_that_do_not_fit(recognizer: Recognizer) -> None:
    with pytest.raises(ParameterError, match="hop_s is 4"):
        open_stream(recognizer, rate_hz=16_000, channels=1, options=Options(hop_s=4.0))


def test_an_hour_takes_no_more_memory_than_some_minutes(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is looked at after every minute."""
    monkeypatch.setattr("nnpm.service.inference.stream.MAX_SEGMENTS", 100)
    options = Options(window_s=2, hop_s=2)
    stream = open_stream(recognizer, rate_hz=16_000, channels=1, options=options)
    minute = pcm(talk(*[2.5, -1.5] * 10, *[-20.0]))
    held = []
    for _ in range(12):
        for _ in feed(stream, minute, 16_000):
            pass
        held.append((stream._buffer._samples.nbytes, len(stream._recent), len(stream._pause)))
        assert len(stream._listed) <= 100
    assert stream.info.duration_s == 12 * 60
    assert max(nbytes for nbytes, *_ in held) / 4 / 16_000 <= 3 * 2 + 1
    assert max(recent + quiet for _, recent, quiet in held) <= 20
    answer = stream.finish()
    assert len(answer.segments) == 100
    assert answer.segments[-1].end_s == pytest.approx(12 * 60 - 20 - 1.5, abs=2)


def test_opposite_phase_does_not_cancel_a_stream(recognizer: Recognizer) -> None:
    left = speechlike(5)
    frames = pcm(np.stack([left, -left], axis=1))
    stream = open_stream(recognizer, rate_hz=16_000, channels=2)
    list(feed(stream, frames, 320))
    assert_alike(
        stream.finish(), whole(recognizer, frames), tolerance=0.05
    )  # the ends of turns differ a little
    (warning,) = stream.info.warnings
    assert "cancel each other out" in warning


def spans(answer: Answer) -> list[tuple[float, float]]:
    return [(one.start_s, one.end_s) for one in answer.segments]


TURNS = {
    "just speech": (5.0,),
    "a word": (0.4,),
    "a pause": (-2.0, 3.0, -1.5, 3.0, -2.0),
    "much silence": (-14.0, 3.0, -17.0),
    "an ending that is cut": (4.0, -1.2, 4.0),
    "many turns": (2.5, -1.2, 3.0, -2.0, 2.2, -1.5, 4.0, -0.9, 2.8, -1.0),
}


@pytest.mark.parametrize("name", TURNS)
def test_turns_are_those_of_the_recording(recognizer: Recognizer, name: str) -> None:
    frames = pcm(talk(*TURNS[name]))
    options = Options(segments="turns")
    segments, answer = streamed(recognizer, frames, options=options)
    expected = whole(recognizer, frames, options=options)
    assert len(answer.segments) == len(expected.segments)
    np.testing.assert_allclose(spans(answer), spans(expected), atol=0.15)
    assert list(answer.segments[: len(segments)]) == segments
    assert len(segments) >= len(answer.segments) - 1
    assert_alike(answer, expected, tolerance=0.02)
    assert answer.speech_ratio == pytest.approx(expected.speech_ratio, abs=0.05)


def test_a_turn_is_sent_after_a_pause(recognizer: Recognizer) -> None:
    frames = pcm(talk(-1.0, 2.5, -1.5, 3.0, -1.5))
    stream = open_stream(recognizer, rate_hz=16_000, channels=1)
    late_s = []
    for start in range(0, len(frames), 160):
        needed = stream.frames_needed
        segment = stream.push(frames[start : start + 160])
        if segment is not None:
            assert needed <= 160
            late_s.append((start + 160) / 16_000 - segment.end_s)
    assert len(late_s) == 2
    assert max(late_s) < 0.5


def test_a_turn_without_end_is_sent_in_pieces(recognizer: Recognizer) -> None:
    frames = pcm(talk(35.0))
    segments, answer = streamed(recognizer, frames, options=Options())
    assert len(segments) >= 3
    assert max(one.end_s - one.start_s for one in answer.segments) <= 10.2
    assert all(
        one.end_s <= following.start_s + 1e-9
        for one, following in itertools.pairwise(answer.segments)
    )
    assert answer.segments[-1].end_s == pytest.approx(35, abs=0.3)


@pytest.mark.parametrize("block", [7, 500, 4_000, 100_000])
def test_how_turns_are_cut_into_messages_makes_no_difference(
    recognizer: Recognizer, block: int
) -> None:
    frames, options = pcm(talk(-1.0, 2.0, -2.0, 3.0, -0.4, 2.0)), Options()
    assert streamed(recognizer, frames, block=block, options=options) == streamed(
        recognizer, frames, block=320, options=options
    )


@pytest.mark.parametrize("duration_s", [0.2, 0.5, 20.0])
def test_a_stream_without_turns_is_answered(recognizer: Recognizer, duration_s: float) -> None:
    frames, options = pcm(np.zeros(round(16_000 * duration_s))), Options()
    segments, answer = streamed(recognizer, frames, options=options)
    assert segments == []
    assert "no_speech" in answer.reasons
    assert len(answer.segments) == 1
    assert answer.speech_ratio == 0
    assert_alike(answer, whole(recognizer, frames, options=options), tolerance=1e-3 + 1e-9)


def test_hours_of_turns_take_little_memory(recognizer: Recognizer) -> None:
    stream = open_stream(recognizer, rate_hz=16_000, channels=1)
    minute = pcm(talk(*[2.5, -1.5] * 10, *[-20.0]))
    for _ in range(3):
        for _ in feed(stream, minute, 16_000):
            pass
        assert stream._buffer.end - stream._buffer.base < 6 * 16_000
