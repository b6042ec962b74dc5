"""Recording in, answer out: plan the windows, score them, decide, answer."""

import time
from dataclasses import dataclass, replace

import numpy as np

from .answer import (
    MAX_SILENT_WINDOWS,
    NO_PROJECTION,
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

TOO_SHORT_S = 0.3
"""A shorter recording is scored, but not answered."""

CLIPPED_RATIO = 0.05
"""A recording is not answered if at least this share of its samples is at full scale."""

_MAX_WINDOW_S = 10.0
_MAX_WINDOWS = 10_000  # about a minute of work
_MIN_SAMPLES = 512  # the encoders' front ends need them; shorter windows are padded


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Options with the bundle's own filled in.

    Attributes:
        window_length: of a window, in samples.
        hop_length: from the start of one window to the start of the next, in samples.
        allowed: indices of the emotions that may be answered.
        force: whether every window is scored, because an answer is forced on each.
    """

    window_length: int
    hop_length: int
    allowed: list[int]
    force: bool


class Recognizer:
    """A bundle that scores recordings; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: used by one inference.

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
                f"utterance; its graphs have {self.model.width}."
            )
        self.memory = MemoryIndex(
            memory, self.model.project(memory.features), bundle.card.decision, bundle.labels
        )

    def answer(self, recording: Recording, options: Options = Options()) -> Answer:  # noqa: B008
        """Answer for a recording, or for each of its channels and their mean.

        Args:
            recording: as decoded; one waveform per channel if the channels were split.
            options: windows, neighbours, abstention, allowed emotions.

        Returns:
            The answer; with several waveforms that of their mean, and each in ``per_channel``.

        Raises:
            ParameterError: if an option is out of range.
        """
        plan = self.plan(options)
        started = time.perf_counter()
        scores = [
            self._score_channel(recording, channel, plan)
            for channel in range(len(recording.waveforms))
        ]
        answers = tuple(self.decide(one, options) for one in scores)
        if len(answers) == 1:
            answer = answers[0]
        else:
            whole = self.decide(ChannelScores.of_channels(scores), options)
            answer = replace(whole, per_channel=answers)
        return replace(answer, inference_ms=1000.0 * (time.perf_counter() - started))

    def plan(self, options: Options) -> WindowPlan:
        """Check options, and fill in the bundle's own.

        Raises:
            ParameterError: if an option is out of range.
        """
        card = self.bundle.card
        window_s = card.window_s if options.window_s is None else options.window_s
        hop_s = min(card.hop_s, window_s) if options.hop_s is None else options.hop_s
        if not 0.5 <= window_s <= _MAX_WINDOW_S:
            raise ParameterError(
                f"window_s is {window_s:g}; it must be between 0.5 and {_MAX_WINDOW_S:g}."
            )
        if not 0.1 <= hop_s <= window_s:
            raise ParameterError(
                f"hop_s is {hop_s:g}; it must be between 0.1 and window_s ({window_s:g})."
            )
        if not 0 <= options.neighbours <= 100:
            raise ParameterError(
                f"neighbours is {options.neighbours}; it must be between 0 and 100."
            )
        return WindowPlan(
            window_length=round(window_s * SAMPLE_RATE_HZ),
            hop_length=round(hop_s * SAMPLE_RATE_HZ),
            allowed=self._indices(options.emotions),
            force=not options.abstain,
        )

    def _indices(self, emotions: tuple[str, ...] | None) -> list[int]:
        labels = self.bundle.labels
        allowed = labels if emotions is None else emotions
        known = f"this model knows {', '.join(labels)}."
        if not allowed:
            raise ParameterError(f"emotions is empty; {known}")
        if unknown := [emotion for emotion in allowed if emotion not in labels]:
            raise ParameterError(f"emotions contains {', '.join(unknown)}; {known}")
        return [labels.index(emotion) for emotion in allowed]

    def _score_channel(self, recording: Recording, channel: int, plan: WindowPlan) -> ChannelScores:
        """Score one channel, window by window; windows without speech only if they count."""
        waveform = recording.waveforms[channel]
        quality = assess(waveform)
        bounds = _window_bounds(waveform, quality, plan, len(recording.waveforms))
        if len(bounds) == 1 or not quality.has_speech:
            speech = [quality.has_speech] * len(bounds)
        else:
            speech = [assess(waveform.part(*one)).has_speech for one in bounds]

        def reasons(has_speech: bool) -> tuple[Reason, ...]:
            return signal_reasons(has_speech, waveform.duration_s, recording.info.clipped_ratio)

        scores = [
            self.score_window(
                waveform,
                one,
                plan,
                reasons=reasons(has_speech),
                channel=channel,
                run_model=has_speech
                or plan.force
                or (index < MAX_SILENT_WINDOWS and not any(speech)),
            )
            for index, (one, has_speech) in enumerate(zip(bounds, speech, strict=True))
        ]
        return ChannelScores.of_windows(scores, quality.speech_ratio, reasons(any(speech)))

    def score_window(
        self,
        waveform: Waveform,
        bounds: tuple[int, int],
        plan: WindowPlan,
        *,
        reasons: tuple[Reason, ...],
        run_model: bool,
        channel: int = 0,
        offset: int = 0,
    ) -> WindowScore:
        """Score one window.

        Args:
            waveform: that the window is cut from.
            bounds: start and end of the window, in samples of the waveform.
            plan: names the allowed emotions.
            reasons: to abstain whatever the probabilities are.
            run_model: False gives all allowed emotions the same probability.
            channel: counted from 0.
            offset: where the waveform starts in the recording, in samples.
        """
        start, end = bounds
        if run_model:
            samples = waveform.part(start, end).samples
            (probabilities,), embedding, (projection,) = self.score(samples)
            out_of_domain = float(self.memory.out_of_domain(embedding)[0])
        else:
            probabilities = np.zeros(len(self.bundle.labels), np.float32)
            projection = NO_PROJECTION
            out_of_domain = 0.0
        return WindowScore(
            start_s=(offset + start) / SAMPLE_RATE_HZ,
            end_s=(offset + end) / SAMPLE_RATE_HZ,
            channel=channel,
            probabilities=_restrict(probabilities, plan.allowed),
            out_of_domain=out_of_domain,
            projection=projection,
            reasons=reasons,
            scored=run_model,
        )

    def score(self, samples: Floats) -> tuple[Floats, Floats, Floats]:
        """Run the model on one window.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``; fewer than 512 are
                padded with zeros.

        Returns:
            Probabilities ``(1, num_emotions)``, embedding ``(1, D)``, projection ``(1, width)``.
        """
        if len(samples) < _MIN_SAMPLES:
            samples = np.pad(samples, (0, _MIN_SAMPLES - len(samples)))
        logits, embedding = self.model.run(samples[None], np.array([len(samples)], dtype=np.int64))
        projection = self.model.project(embedding)
        return self.probabilities(logits, projection), embedding, projection

    def probabilities(self, logits: Floats, projection: Floats) -> Floats:
        """Combine the classifier with the memory's vote, as the card's decision says.

        Args:
            logits: of the classifier, shape ``(n, num_emotions)``.
            projection: unit features, shape ``(n, width)``.

        Returns:
            Calibrated probabilities, shape ``(n, num_emotions)``; rows sum to 1.
        """
        decision = self.bundle.card.decision
        weight = np.float32(decision.vote_weight)
        bias = np.array(decision.logit_bias or 0.0, np.float32)
        probabilities = softmax(logits / np.float32(decision.temperature) + bias)
        if weight > 0:
            vote = self.memory.vote(projection)
            probabilities = (1 - weight) * probabilities + weight * vote
        return probabilities

    def decide(self, scores: ChannelScores, options: Options) -> Answer:
        """Decide for the whole and for each window.

        Args:
            scores: of one channel, or of all together.
            options: as for :meth:`answer`; checked by :meth:`plan` before.
        """
        whole = self.decide_window(scores.whole, options)
        projection = scores.whole.projection
        projection = projection / max(float(np.linalg.norm(projection)), 1e-6)
        segments = tuple(self.decide_window(one, options) for one in scores.windows)
        return Answer(
            emotion=whole.emotion,
            confidence=whole.confidence,
            scores=whole.scores,
            abstained=whole.emotion is None,
            reasons=whole.reasons,
            out_of_domain=min(1.0, scores.whole.out_of_domain),
            speech_ratio=scores.speech_ratio,
            segments=segments,
            timeline=merge_windows(segments),
            neighbours=self.memory.nearest(projection, options.neighbours),
        )

    def decide_window(self, score: WindowScore, options: Options) -> Segment:
        """Decide for one window: the most probable emotion, or none and the reasons."""
        decision = self.bundle.card.decision
        # sums of probabilities miss 1 by rounding
        probabilities = [min(1.0, float(one)) for one in score.probabilities]
        best = int(np.argmax(score.probabilities))
        reasons = list(score.reasons)
        if score.scored and probabilities[best] < decision.low_confidence:
            reasons.append("low_confidence")
        if score.scored and score.out_of_domain > decision.out_of_domain:
            reasons.append("out_of_domain")
        abstained = options.abstain and bool(reasons)
        return Segment(
            start_s=score.start_s,
            end_s=score.end_s,
            channel=score.channel,
            emotion=None if abstained else self.bundle.labels[best],
            confidence=probabilities[best],
            scores=dict(zip(self.bundle.labels, probabilities, strict=True)),
            reasons=tuple(reasons),
        )


def windows(num_samples: int, window_length: int, hop_length: int) -> list[tuple[int, int]]:
    """Cut a clip into windows that cover all of it.

    Args:
        num_samples: length of the clip.
        window_length: of a window, in samples.
        hop_length: from the start of one window to the start of the next, in samples; 1 to
            ``window_length``.

    Returns:
        ``(start, end)`` of each window in samples, in order of start. A remainder of at most half
        a hop is added to the last window, so that a clip hardly longer than a window is still one;
        a longer remainder gets a window of its own, which ends where the clip ends.

    Examples:
        >>> windows(10, window_length=4, hop_length=2)
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> windows(9, window_length=4, hop_length=4)
        [(0, 4), (4, 9)]
        >>> windows(11, window_length=4, hop_length=4)
        [(0, 4), (4, 8), (7, 11)]
        >>> windows(3, window_length=4, hop_length=4)
        [(0, 3)]
    """
    assert 0 < hop_length <= window_length, f"hop {hop_length} is not in 1..{window_length}"
    if num_samples <= window_length:
        return [(0, num_samples)]
    bounds = [
        (start, start + window_length)
        for start in range(0, num_samples - window_length + 1, hop_length)
    ]
    remainder = num_samples - bounds[-1][1]
    if 2 * remainder > hop_length:
        bounds.append((num_samples - window_length, num_samples))
    elif remainder:
        bounds[-1] = (bounds[-1][0], num_samples)
    return bounds


def signal_reasons(has_speech: bool, duration_s: float, clipped_ratio: float) -> tuple[Reason, ...]:
    """Why to abstain whatever the model computes.

    Args:
        has_speech: whether speech was found.
        duration_s: length of the recording in seconds.
        clipped_ratio: share of its samples at full scale, in [0, 1].

    Examples:
        >>> signal_reasons(has_speech=False, duration_s=0.2, clipped_ratio=0.0)
        ('no_speech', 'too_short')
    """
    found: dict[Reason, bool] = {
        "no_speech": not has_speech,
        "too_short": duration_s < TOO_SHORT_S,
        "clipped": clipped_ratio >= CLIPPED_RATIO,
    }
    return tuple(reason for reason, holds in found.items() if holds)


def _window_bounds(
    waveform: Waveform, quality: Quality, plan: WindowPlan, num_channels: int
) -> list[tuple[int, int]]:
    """Start and end of each window in samples of the waveform; silent edges are left out."""
    offset, stop = speech_bounds(waveform, quality)
    bounds = windows(stop - offset, plan.window_length, plan.hop_length)
    num_windows = len(bounds) * num_channels
    if num_windows > _MAX_WINDOWS:
        hop_s = waveform.duration_s * num_channels / _MAX_WINDOWS + 0.01
        raise ParameterError(
            f"hop_s is {plan.hop_length / SAMPLE_RATE_HZ:g}, which cuts "
            f"{waveform.duration_s:.0f} s into {num_windows} windows; at most {_MAX_WINDOWS} are "
            f"scored: take a hop of {hop_s:.2f} s or more."
        )
    return [(offset + start, offset + end) for start, end in bounds]


def _restrict(probabilities: Floats, allowed: list[int]) -> Floats:
    """Distribute the probability over the allowed emotions; evenly, if they have none of it."""
    kept = np.zeros_like(probabilities)
    kept[allowed] = probabilities[allowed] + np.float32(1e-12)
    restricted: Floats = kept / kept.sum()
    return restricted
