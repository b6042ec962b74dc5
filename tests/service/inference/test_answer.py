from itertools import pairwise

import numpy as np
import pytest

from nnpm.service.inference.answer import Reason, Segment, merge_windows


def window(
    start_s: float,
    end_s: float,
    emotion: str | None,
    confidence: float = 0.5,
    channel: int = 0,
    reasons: tuple[Reason, ...] = (),
) -> Segment:
    return Segment(start_s, end_s, channel, emotion, confidence, {}, reasons)


def test_nothing_gives_nothing() -> None:
    assert merge_windows([]) == ()


def test_one_window_is_one_entry() -> None:
    (one,) = merge_windows([window(1.2, 4, "sad", 0.7, channel=3)])
    assert (one.start_s, one.end_s, one.channel, one.emotion) == (1.2, 4, 3, "sad")
    assert one.confidence == pytest.approx(0.7)


def test_neighbours_with_another_reason_stay_apart() -> None:
    silence, doubt = ("no_speech",), ("low_confidence",)
    segments = [
        window(0, 2, "sad"),
        window(2, 4, None, reasons=silence),
        window(4, 6, None, reasons=silence),
        window(6, 8, None, reasons=doubt),
        window(8, 10, "sad"),
        window(10, 12, "sad", reasons=doubt),  # forced
    ]
    found = [(one.start_s, one.end_s, one.emotion, one.reasons) for one in merge_windows(segments)]
    assert found == [
        (0, 2, "sad", ()),
        (2, 6, None, silence),
        (6, 8, None, doubt),
        (8, 10, "sad", ()),
        (10, 12, "sad", doubt),
    ]


def test_channels_are_joined_apart_and_returned_in_order() -> None:
    segments = [
        window(start, start + 2, emotion, channel=channel)
        for start, left, right in ((0, "sad", "angry"), (2, "sad", "happy"), (4, "calm", "happy"))
        for channel, emotion in enumerate((left, right))
    ]
    found = [(one.start_s, one.end_s, one.channel, one.emotion) for one in merge_windows(segments)]
    assert found == [
        (0, 4, 0, "sad"), (0, 2, 1, "angry"), (2, 6, 1, "happy"), (4, 6, 0, "calm"),
    ]  # fmt: skip


@pytest.mark.parametrize("hop_s", [0.5, 1.0, 1.7, 3.0])
def test_entries_cover_all_once_and_each_moment_has_the_nearest_window(hop_s: float) -> None:
    rng = np.random.default_rng(0)
    segments = [
        window(k * hop_s, k * hop_s + 3, str(rng.choice(["sad", "calm"])), float(rng.random()))
        for k in range(40)
    ]
    entries = merge_windows(segments)
    assert entries[0].start_s == 0
    assert entries[-1].end_s == segments[-1].end_s
    for one, following in pairwise(entries):
        assert one.end_s == following.start_s
        assert one.emotion != following.emotion
    for moment_s in rng.uniform(0, segments[-1].end_s, 500):
        nearest = min(segments, key=lambda one: abs((one.start_s + one.end_s) / 2 - moment_s))
        (there,) = [one for one in entries if one.start_s <= moment_s < one.end_s]
        assert there.emotion == nearest.emotion
    # summed over time, confidence is kept
    grid = np.arange(0, segments[-1].end_s, 0.001) + 0.0005
    middles = np.array([(one.start_s + one.end_s) / 2 for one in segments])
    nearest_of = np.abs(grid[:, None] - middles).argmin(axis=1)
    by_hand = np.mean([segments[k].confidence for k in nearest_of])
    weighted = sum((one.end_s - one.start_s) * one.confidence for one in entries)
    assert weighted / segments[-1].end_s == pytest.approx(by_hand, abs=1e-3)
