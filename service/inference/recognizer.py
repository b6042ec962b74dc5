"""Long audio as overlapping windows.

Recordings in, answers out: windows, decision, abstention.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from .answer import (
    MOST_SILENT,
    Answer,
    ChannelScores,
    Options,
    Reason,
    Segment,
    WindowScore,
    merge_windows,
)
from .audio.speech import Quality, assess, speech_bounds
from .audio.waveform import SAMPLE_RATE_HZ, Recording, Waveform
from .bundle import Bundle
from .errors import BundleError, ParameterError
from .graphs import Floats, Model, softmax
from .memory import MemoryIndex


def windows(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Cut a clip into windows that cover all of it.

    Args:
        num_samples: length of the clip.
        window: length of a window, in samples.
        hop: from the start of one window to the start of the next, in samples; 1 to ``window``.

    Returns:
        ``(start, end)`` of each window in samples, in order of start. A rest of at most half a hop
        joins the last window, so that a clip hardly longer than a window is still one; a longer
        rest gets a window of its own, which ends where the clip ends.

    Examples:
        >>> windows(10, window=4, hop=2)
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> windows(9, window=4, hop=4)
        [(0, 4), (4, 9)]
        >>> windows(11, window=4, hop=4)
        [(0, 4), (4, 8), (7, 11)]
        >>> windows(3, window=4, hop=4)
        [(0, 3)]
    """
    assert 0 < hop <= window, f"hop {hop} is not in 1..{window}"
    if num_samples <= window:
        return [(0, num_samples)]
    cuts = [(start, start + window) for start in range(0, num_samples - window + 1, hop)]
    rest = num_samples - cuts[-1][1]
    if 2 * rest > hop:
        cuts.append((num_samples - window, num_samples))
    elif rest:
        cuts[-1] = (cuts[-1][0], num_samples)
    return cuts


TOO_SHORT_S = 0.3
"""Shorter recordings are scored, and abstained from."""

CLIPPED_RATIO = 0.05
"""Abstain where at least this share of the samples is at full scale."""

_LONGEST_WINDOW_S = 10.0
_MOST_WINDOWS = 10_000  # about a minute of work
_MIN_SAMPLES = 512
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Options with the bundle's own filled in: lengths in samples, emotions as indices.

    Where answers are forced, all windows are scored.
    """

    window: int
    hop: int
    allowed: list[int]
    force: bool


class Recognizer:
    """A bundle, ready to answer; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: of one inference.

    Raises:
        BundleError: if the bundle fails its golden probe, or its memory does not fit its graphs.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self.model = Model(bundle, threads=threads)
        memory = bundle.memory()
        if memory.features.shape[1] != self.model.width:
            raise BundleError(
                f"The memory of {bundle.path} holds {memory.features.shape[1]} features per "
                f"utterance, and its graphs work on {self.model.width}."
            )
        self.neighbourhood = MemoryIndex(
            memory, self.model.project(memory.features), bundle.card.decision, bundle.labels
        )

    def answer(self, recording: Recording, options: Options = Options()) -> Answer:  # noqa: B008
        """Answer for a recording, or for each of its channels and their mean.

        Args:
            recording: as decoded; with several waveforms the channels were split.
            options: windows, neighbours, abstention, allowed emotions.

        Raises:
            ParameterError: if an option is out of range.
        """
        plan = self.plan(options)
        start = time.perf_counter()
        tracks = [
            self._listen(recording, channel, plan) for channel in range(len(recording.waveforms))
        ]
        channels = tuple(self.tell(track, options) for track in tracks)
        if len(tracks) == 1:
            answer = channels[0]
        else:
            answer = replace(
                self.tell(ChannelScores.of_channels(tracks), options), per_channel=channels
            )
        return replace(answer, inference_ms=1000.0 * (time.perf_counter() - start))

    def score(self, waveform: Floats) -> tuple[Floats, Floats, Floats]:
        """Probabilities, embedding and projection of one window; shapes ``(1, …)``."""
        if len(waveform) < _MIN_SAMPLES:
            waveform = np.pad(waveform, (0, _MIN_SAMPLES - len(waveform)))
        logits, embedding = self.model.run(
            waveform[None], np.array([len(waveform)], dtype=np.int64)
        )
        projection = self.model.project(embedding)
        return self.decide(logits, projection), embedding, projection

    def decide(self, logits: Floats, projection: Floats) -> Floats:
        """Calibrated probabilities of the classifier and the memory's vote, ``(n, emotions)``."""
        decision = self.bundle.card.decision
        weight = np.float32(decision.vote_weight)
        bias = np.array(decision.logit_bias or 0.0, np.float32)
        probabilities = softmax(logits / np.float32(decision.temperature) + bias)
        if weight > 0:
            vote = self.neighbourhood.vote(projection)
            probabilities = (1 - weight) * probabilities + weight * vote
        return probabilities

    def plan(self, options: Options) -> WindowPlan:
        """Fill in the bundle's own options.

        Raises:
            ParameterError: if an option is out of range.
        """
        card = self.bundle.card
        window_s = card.window_s if options.window_s is None else options.window_s
        hop_s = min(card.hop_s, window_s) if options.hop_s is None else options.hop_s
        if not 0.5 <= window_s <= _LONGEST_WINDOW_S:
            raise ParameterError(
                f"window_s is {window_s:g}; 0.5 to {_LONGEST_WINDOW_S:g} is wanted."
            )
        if not 0.1 <= hop_s <= window_s:
            raise ParameterError(f"hop_s is {hop_s:g}; 0.1 to window_s ({window_s:g}) is wanted.")
        if not 0 <= options.neighbours <= 100:
            raise ParameterError(f"neighbours is {options.neighbours}; 0 to 100 is wanted.")
        return WindowPlan(
            round(window_s * SAMPLE_RATE_HZ),
            round(hop_s * SAMPLE_RATE_HZ),
            self._indices(options.emotions),
            force=not options.abstain,
        )

    def _indices(self, emotions: tuple[str, ...] | None) -> list[int]:
        labels = self.bundle.labels
        chosen = labels if emotions is None else emotions
        known = f"this model knows {', '.join(labels)}."
        if not chosen:
            raise ParameterError(f"emotions is empty; {known}")
        if unknown := [emotion for emotion in chosen if emotion not in labels]:
            raise ParameterError(f"emotions holds {', '.join(unknown)}; {known}")
        return [labels.index(emotion) for emotion in chosen]

    def _listen(self, recording: Recording, channel: int, plan: WindowPlan) -> ChannelScores:
        """Score one channel, window by window; those without speech only as far as they count."""
        waveform = recording.waveforms[channel]
        quality = assess(waveform)
        cuts = _cuts(waveform, quality, plan, len(recording.waveforms))
        if len(cuts) == 1 or not quality.has_speech:
            speaking = [quality.has_speech] * len(cuts)
        else:
            speaking = [assess(waveform.part(*cut)).has_speech for cut in cuts]
        parts = []
        for index, (cut, has_speech) in enumerate(zip(cuts, speaking, strict=True)):
            counts = has_speech or (index < MOST_SILENT and not any(speaking))
            reasons = _obstacles(recording, waveform, has_speech=has_speech)
            parts.append(self.part(waveform, cut, channel, plan, reasons, counts or plan.force))
        reasons = _obstacles(recording, waveform, has_speech=any(speaking))
        return ChannelScores.of_windows(parts, quality.speech_ratio, reasons)

    def part(
        self,
        waveform: Waveform,
        cut: tuple[int, int],
        channel: int,
        plan: WindowPlan,
        reasons: tuple[Reason, ...],
        scored: bool,
    ) -> WindowScore:
        """One window; without asking the model, where it is not to be scored."""
        if scored:
            found, embedding, projection = self.score(waveform.part(*cut).samples)
            probabilities, features = _restrict(found[0], plan.allowed), projection[0]
            out_of_domain = float(self.neighbourhood.out_of_domain(embedding)[0])
        else:
            even = np.zeros(len(self.bundle.labels), np.float32)
            probabilities, features = _restrict(even, plan.allowed), _NOTHING
            out_of_domain = 0.0
        start, end = cut
        return WindowScore(
            start_s=start / SAMPLE_RATE_HZ,
            end_s=end / SAMPLE_RATE_HZ,
            channel=channel,
            probabilities=probabilities,
            out_of_domain=out_of_domain,
            projection=features,
            reasons=reasons,
            scored=scored,
        )

    def tell(self, track: ChannelScores, options: Options) -> Answer:
        """Decide for the whole and for each window."""
        whole = self.segment(track.whole, options)
        projection = track.whole.projection
        projection = projection / max(float(np.linalg.norm(projection)), 1e-6)
        segments = tuple(self.segment(part, options) for part in track.windows)
        return Answer(
            emotion=whole.emotion,
            confidence=whole.confidence,
            scores=whole.scores,
            abstained=whole.emotion is None,
            reasons=whole.reasons,
            out_of_domain=track.whole.out_of_domain,
            speech_ratio=track.speech_ratio,
            segments=segments,
            timeline=merge_windows(segments),
            neighbours=self.neighbourhood.nearest(projection, options.neighbours),
        )

    def segment(self, part: WindowScore, options: Options) -> Segment:
        """Decide for one window."""
        decision = self.bundle.card.decision
        best = int(np.argmax(part.probabilities))
        confidence = min(1.0, float(part.probabilities[best]))
        reasons = list(part.reasons)
        if part.scored and confidence < decision.low_confidence:
            reasons.append("low_confidence")
        if part.scored and part.out_of_domain > decision.out_of_domain:
            reasons.append("out_of_domain")
        abstained = options.abstain and bool(reasons)
        return Segment(
            start_s=part.start_s,
            end_s=part.end_s,
            channel=part.channel,
            emotion=None if abstained else self.bundle.labels[best],
            confidence=confidence,
            scores=dict(zip(self.bundle.labels, map(float, part.probabilities), strict=True)),
            reasons=tuple(reasons),
        )


def _cuts(
    waveform: Waveform, quality: Quality, plan: WindowPlan, num_channels: int
) -> list[tuple[int, int]]:
    """Start and end of each window in samples of the waveform; silent edges are left out."""
    offset, stop = speech_bounds(waveform, quality)
    cuts = windows(stop - offset, plan.window, plan.hop)
    if len(cuts) * num_channels > _MOST_WINDOWS:
        hop_s = waveform.duration_s * num_channels / _MOST_WINDOWS + 0.01
        raise ParameterError(
            f"hop_s {plan.hop / SAMPLE_RATE_HZ:g} cuts {waveform.duration_s:.0f} s into "
            f"{len(cuts) * num_channels} windows; at most {_MOST_WINDOWS} are scored: "
            f"take a hop of {hop_s:.2f} s or more."
        )
    return [(offset + start, offset + end) for start, end in cuts]


def _restrict(probabilities: Floats, allowed: list[int]) -> Floats:
    """Leave the allowed emotions alone in the race; all alike, if none of them had a chance."""
    chances = np.zeros_like(probabilities)
    chances[allowed] = probabilities[allowed] + np.float32(1e-12)
    restricted: Floats = chances / chances.sum()
    return restricted


def _obstacles(recording: Recording, waveform: Waveform, *, has_speech: bool) -> tuple[Reason, ...]:
    """Why to abstain whatever the model says."""
    found: dict[Reason, bool] = {
        "no_speech": not has_speech,
        "too_short": waveform.duration_s < TOO_SHORT_S,
        "clipped": recording.info.clipped_ratio >= CLIPPED_RATIO,
    }
    return tuple(reason for reason, holds in found.items() if holds)
