"""Answers made by code, as /predict gives them."""

from nnpm.service.inference.answer import Answer, Segment, TimelineEntry
from nnpm.service.inference.audio.waveform import AudioInfo
from nnpm.service.predict.schemas import (
    AudioPart,
    ChannelPart,
    ModelPart,
    PredictAnswer,
    TimingPart,
    rounded,
)

LABELS = ("angry", "happy", "sad")

Entry = tuple[float, float, int, str | None] | tuple[float, float, int, str | None, str]
"""Start and end in seconds, channel, emotion (None abstains), and the speaker if known."""


def scores_of(emotion: str | None) -> dict[str, float]:
    return {label: 0.625 if label == (emotion or "sad") else 0.1875 for label in LABELS}


def made_answer(
    entries: list[Entry], *, duration_s: float = 10.0, channels: int = 1, split: bool = False
) -> PredictAnswer:
    """An answer whose segments and timeline are these; ``silence`` as an emotion is no speech."""
    segments, timeline = [], []
    for start_s, end_s, channel, said, *named in entries:
        speaker = named[0] if named else None
        emotion = None if said == "silence" else said
        reasons = ("no_speech",) if said == "silence" else () if said else ("low_confidence",)
        segments.append(
            Segment(start_s, end_s, channel, emotion, 0.625, scores_of(emotion), reasons, speaker)
        )
        timeline.append(TimelineEntry(start_s, end_s, channel, emotion, 0.625, reasons, speaker))
    emotion = entries[0][3] if entries else None
    whole = rounded(
        Answer(
            emotion=emotion, confidence=0.625, scores=scores_of(emotion), abstained=emotion is None,
            reasons=() if emotion else ("low_confidence",), out_of_domain=0.25, speech_ratio=0.5,
            segments=tuple(segments), timeline=tuple(timeline),
        )
    )  # fmt: skip
    how = {"calibrated": True, "top_k": None, "neighbours": False}
    extras = {}
    if split:
        extras["per_channel"] = [ChannelPart.of(whole, channel=n, **how) for n in range(channels)]
    return PredictAnswer.of(
        whole,
        audio=AudioPart.of(AudioInfo(duration_s, 16_000, channels, "WAV"), 0.5),
        model=ModelPart(name="default", version="2", language="und"),
        timing_ms=TimingPart(queue=0, decode=0, inference=0, total=0),
        **how,
        **extras,
    )
