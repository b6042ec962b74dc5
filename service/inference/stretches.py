"""Overlapping windows joined into the stretches of a timeline."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from service.inference.answer import Segment, Stretch


def join(segments: Sequence[Segment]) -> tuple[Stretch, ...]:
    """Join neighbouring windows with the same outcome, channel by channel.

    Where two windows overlap, each keeps what is nearer to its middle: the border lies half way
    through the overlap. So stretches do not overlap, and leave out only what no window covers.

    Args:
        segments: windows; those of one channel in order of start.

    Returns:
        Stretches in order of start, then channel. Outcomes are the same if emotion and reasons
        are; the confidence is the mean of the windows', each counting by the time that it keeps.

    Examples:
        >>> def window(start_s, emotion, confidence):
        ...     return Segment(start_s, start_s + 2, 0, emotion, confidence, {}, ())
        >>> for one in join([window(0, "sad", 0.5), window(1, "sad", 0.8), window(2, "angry", 1)]):
        ...     print(one.start_s, one.end_s, one.emotion, round(one.confidence, 3))
        0 2.5 sad 0.62
        2.5 4 angry 1.0
    """
    ordered = sorted(segments, key=lambda one: one.channel)
    found = [
        stretch
        for _, channel in groupby(ordered, key=lambda one: one.channel)
        for stretch in _of_channel(list(channel))
    ]
    return tuple(sorted(found, key=lambda one: (one.start_s, one.channel)))


def _of_channel(segments: Sequence[Segment]) -> Iterator[Stretch]:
    between = [(one.end_s + next_one.start_s) / 2 for one, next_one in pairwise(segments)]
    starts = [segments[0].start_s, *between]
    ends = [*between, segments[-1].end_s]
    kept = list(zip(starts, ends, segments, strict=True))
    for (emotion, reasons), run in groupby(kept, key=lambda one: (one[2].emotion, one[2].reasons)):
        parts = list(run)
        total_s = sum(end - start for start, end, _ in parts)
        weighted = sum((end - start) * one.confidence for start, end, one in parts)
        yield Stretch(
            start_s=parts[0][0],
            end_s=parts[-1][1],
            channel=parts[0][2].channel,
            emotion=emotion,
            confidence=min(1.0, weighted / total_s),
            reasons=reasons,
        )
