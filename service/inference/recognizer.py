"""Recordings in, answers out: windows, decision, abstention."""

import time
from dataclasses import dataclass, replace

import numpy as np

from service.inference.answer import Answer, Options, Reason, Segment
from service.inference.audio import SAMPLE_RATE_HZ, Recording, Waveform
from service.inference.bundle import Bundle
from service.inference.errors import ParameterError
from service.inference.model import Floats, Model, softmax
from service.inference.neighbourhood import Neighbourhood
from service.inference.quality import Quality, assess, speech_bounds
from service.inference.windows import windows

TOO_SHORT_S = 0.3
"""Shorter recordings are scored, and abstained from."""

CLIPPED_RATIO = 0.05
"""Abstain where at least this share of the samples is at full scale."""

_LONGEST_WINDOW_S = 10.0
_MOST_WINDOWS = 10_000  # about a minute of work
_MIN_SAMPLES = 512


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """Windows of one waveform: probabilities, out-of-domain figures, projections, spans."""

    probabilities: Floats
    out_of_domain: Floats
    projections: Floats
    spans: list[tuple[float, float]]
    speech: list[bool]


class Recognizer:
    """A bundle, ready to answer; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: of one inference.

    Raises:
        BundleError: if the bundle fails its golden probe.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self.model = Model(bundle, threads=threads)
        memory = bundle.memory()
        self.neighbourhood = Neighbourhood(
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
        window_s, hop_s, allowed = self._check(options)
        start = time.perf_counter()
        answers = [
            self._channel(recording, channel, options, window_s, hop_s, allowed)
            for channel in range(len(recording.waveforms))
        ]
        answer = answers[0] if len(answers) == 1 else self._combine(answers, options)
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
        probabilities = softmax(logits / np.float32(decision.temperature))
        if weight > 0:
            probabilities = (1 - weight) * probabilities + weight * self.neighbourhood.vote(
                projection
            )
        return probabilities

    def _check(self, options: Options) -> tuple[float, float, list[int]]:
        labels = self.bundle.labels
        window_s = options.window_s if options.window_s is not None else self.bundle.card.window_s
        hop_s = (
            options.hop_s if options.hop_s is not None else min(self.bundle.card.hop_s, window_s)
        )
        if not 0.5 <= window_s <= _LONGEST_WINDOW_S:
            raise ParameterError(
                f"window_s is {window_s:g}; 0.5 to {_LONGEST_WINDOW_S:g} is wanted."
            )
        if not 0.1 <= hop_s <= window_s:
            raise ParameterError(f"hop_s is {hop_s:g}; 0.1 to window_s ({window_s:g}) is wanted.")
        if not 0 <= options.neighbours <= 100:
            raise ParameterError(f"neighbours is {options.neighbours}; 0 to 100 is wanted.")
        emotions = labels if options.emotions is None else options.emotions
        unknown = [emotion for emotion in emotions if emotion not in labels]
        if unknown or not emotions:
            raise ParameterError(
                f"This model knows no {', '.join(unknown) or 'empty list of emotions'}; "
                f"it knows {', '.join(labels)}."
            )
        return window_s, hop_s, [labels.index(emotion) for emotion in emotions]

    def _channel(
        self,
        recording: Recording,
        channel: int,
        options: Options,
        window_s: float,
        hop_s: float,
        allowed: list[int],
    ) -> Answer:
        waveform = recording.waveforms[channel]
        quality = assess(waveform)
        scored = self._windows(waveform, quality, window_s, hop_s, allowed)
        weights = np.array([end - start for start, end in scored.spans]) * scored.speech
        if weights.sum() == 0:
            weights = np.ones(len(scored.spans))
        weights /= weights.sum()

        common: list[Reason] = []
        if not quality.has_speech:
            common.append("no_speech")
        if waveform.duration_s < TOO_SHORT_S:
            common.append("too_short")
        if recording.info.clipped_ratio >= CLIPPED_RATIO:
            common.append("clipped")
        segments = []
        for row, (start_s, end_s) in enumerate(scored.spans):
            reasons = list(common)
            if not scored.speech[row] and "no_speech" not in reasons:
                reasons.insert(0, "no_speech")
            segments.append(
                self._segment(
                    start_s, end_s, channel, scored.probabilities[row],
                    float(scored.out_of_domain[row]), reasons, options,
                )
            )  # fmt: skip
        probabilities = weights @ scored.probabilities
        out_of_domain = float(weights @ scored.out_of_domain)
        whole = self._segment(
            0.0, waveform.duration_s, channel, probabilities, out_of_domain, common, options
        )
        projection = weights @ scored.projections
        return Answer(
            emotion=whole.emotion,
            confidence=whole.confidence,
            scores=whole.scores,
            abstained=whole.emotion is None,
            reasons=whole.reasons,
            out_of_domain=out_of_domain,
            speech_ratio=quality.speech_ratio,
            segments=tuple(segments),
            neighbours=self.neighbourhood.nearest(
                projection / max(float(np.linalg.norm(projection)), 1e-6), options.neighbours
            ),
        )

    def _windows(
        self,
        waveform: Waveform,
        quality: Quality,
        window_s: float,
        hop_s: float,
        allowed: list[int],
    ) -> _Scored:
        offset, stop = speech_bounds(waveform, quality)
        trimmed = waveform.samples[offset:stop]
        cuts = windows(
            len(trimmed), round(window_s * SAMPLE_RATE_HZ), round(hop_s * SAMPLE_RATE_HZ)
        )
        if len(cuts) > _MOST_WINDOWS:
            raise ParameterError(
                f"hop_s {hop_s:g} cuts {waveform.duration_s:.0f} s into {len(cuts)} windows; "
                f"at most {_MOST_WINDOWS} are scored: take a hop of "
                f"{waveform.duration_s / _MOST_WINDOWS + 0.01:.2f} s or more."
            )
        probabilities, domains, projections, spans, speech = [], [], [], [], []
        for start, end in cuts:
            samples = trimmed[start:end]
            scores, embedding, projection = self.score(samples)
            restricted = np.zeros_like(scores)
            restricted[:, allowed] = scores[:, allowed] + np.float32(1e-12)
            probabilities.append(restricted / restricted.sum(axis=1, keepdims=True))
            domains.append(self.neighbourhood.out_of_domain(embedding))
            projections.append(projection)
            spans.append(((offset + start) / SAMPLE_RATE_HZ, (offset + end) / SAMPLE_RATE_HZ))
            alone = len(cuts) == 1
            speech.append((quality if alone else assess(Waveform(samples))).has_speech)
        return _Scored(
            np.concatenate(probabilities),
            np.concatenate(domains),
            np.concatenate(projections),
            spans,
            speech,
        )

    def _segment(
        self,
        start_s: float,
        end_s: float,
        channel: int,
        probabilities: Floats,
        out_of_domain: float,
        common: list[Reason],
        options: Options,
    ) -> Segment:
        decision = self.bundle.card.decision
        best = int(np.argmax(probabilities))
        confidence = min(1.0, float(probabilities[best]))
        reasons = list(common)
        if confidence < decision.low_confidence:
            reasons.append("low_confidence")
        if out_of_domain > decision.out_of_domain:
            reasons.append("out_of_domain")
        abstained = options.abstain and bool(reasons)
        return Segment(
            start_s=start_s,
            end_s=end_s,
            channel=channel,
            emotion=None if abstained else self.bundle.labels[best],
            confidence=confidence,
            scores=dict(zip(self.bundle.labels, map(float, probabilities), strict=True)),
            reasons=tuple(reasons),
        )

    def _combine(self, answers: list[Answer], options: Options) -> Answer:
        """The mean of the channels that hold speech (of all, where none does)."""
        speaking = [answer for answer in answers if "no_speech" not in answer.reasons] or answers
        probabilities = np.mean([list(answer.scores.values()) for answer in speaking], axis=0)
        out_of_domain = float(np.mean([answer.out_of_domain for answer in speaking]))
        # What holds for every speaking channel holds for the recording.
        common: list[Reason] = [
            reason
            for reason in speaking[0].reasons
            if reason in ("no_speech", "too_short", "clipped")
            and all(reason in answer.reasons for answer in speaking)
        ]
        whole = self._segment(0.0, 0.0, 0, probabilities, out_of_domain, common, options)
        segments = [segment for answer in answers for segment in answer.segments]
        return Answer(
            emotion=whole.emotion,
            confidence=whole.confidence,
            scores=whole.scores,
            abstained=whole.emotion is None,
            reasons=whole.reasons,
            out_of_domain=out_of_domain,
            speech_ratio=float(np.mean([answer.speech_ratio for answer in answers])),
            segments=tuple(
                sorted(segments, key=lambda segment: (segment.start_s, segment.channel))
            ),
            neighbours=tuple(
                sorted(
                    (n for answer in speaking for n in answer.neighbours),
                    key=lambda neighbour: -neighbour.similarity,
                )[: options.neighbours]
            ),
            per_channel=tuple(answers),
        )
