"""Recording in, answer out: plan the windows, score them, decide, answer."""

import time
from dataclasses import replace

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
from .audio.waveform import SAMPLE_RATE_HZ, Recording, Waveform
from .bundle import Bundle
from .errors import BundleError, check_abandoned
from .graphs import Floats, Model, softmax
from .memory import MemoryIndex
from .segments import ChannelCut, Plan, cut, plan, signal_reasons
from .turns import LONGEST_S, Turn, windows

_MIN_SAMPLES = 512  # the encoders' front ends need them; shorter windows are padded


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
            self._score_channel(recording, channel, one, plan)
            for channel, one in enumerate(cut(recording, plan))
        ]
        answers = tuple(self.decide(one, options) for one in scores)
        if len(answers) == 1:
            answer = answers[0]
        else:
            whole = self.decide(ChannelScores.of_channels(scores), options)
            answer = replace(whole, per_channel=answers)
        if speakers := ChannelScores.of_speakers(scores):
            named = ((name, self.decide(one, options)) for name, one in speakers)
            answer = replace(answer, per_speaker=tuple(named))
        return replace(answer, inference_ms=1000.0 * (time.perf_counter() - started))

    def plan(self, options: Options) -> Plan:
        """Check options, and fill in the bundle's own.

        Raises:
            ParameterError: if an option is out of range.
        """
        return plan(self.bundle.card, self.bundle.labels, options)

    def _score_channel(
        self, recording: Recording, channel: int, segments: ChannelCut, plan: Plan
    ) -> ChannelScores:
        """Score the segments of one channel; those without speech only if they count."""
        waveform, clipped = recording.waveforms[channel], recording.info.clipped_ratio
        has_speech = any(turn.has_speech for turn in segments.turns)
        scores = [
            self.score_window(
                waveform,
                turn,
                plan,
                reasons=signal_reasons(
                    turn.has_speech,
                    waveform.duration_s if segments.by_clock else turn.num_samples / SAMPLE_RATE_HZ,
                    clipped,
                ),
                channel=channel,
                run_model=turn.has_speech
                or plan.force
                or (index < MAX_SILENT_WINDOWS and not has_speech),
            )
            for index, turn in enumerate(segments.turns)
        ]
        reasons = signal_reasons(has_speech, waveform.duration_s, clipped)
        return ChannelScores.of_windows(scores, segments.speech_ratio, reasons)

    def score_window(
        self,
        waveform: Waveform,
        turn: Turn,
        plan: Plan,
        *,
        reasons: tuple[Reason, ...],
        run_model: bool,
        channel: int = 0,
        offset: int = 0,
    ) -> WindowScore:
        """Score one turn or window.

        Args:
            waveform: that it is cut from.
            turn: in samples of the waveform.
            plan: names the allowed emotions.
            reasons: to abstain whatever the probabilities are.
            run_model: False gives all allowed emotions the same probability.
            channel: counted from 0.
            offset: where the waveform starts in the recording, in samples.
        """
        if run_model:
            probabilities, out_of_domain, projection = self._score_pieces(turn.samples(waveform))
        else:
            probabilities = np.zeros(len(self.bundle.labels), np.float32)
            projection = NO_PROJECTION
            out_of_domain = 0.0
        return WindowScore(
            start_s=(offset + turn.start) / SAMPLE_RATE_HZ,
            end_s=(offset + turn.end) / SAMPLE_RATE_HZ,
            channel=channel,
            probabilities=_restrict(probabilities, plan.allowed),
            out_of_domain=out_of_domain,
            projection=projection,
            reasons=reasons,
            weight_s=turn.num_samples / SAMPLE_RATE_HZ,
            scored=run_model,
            speaker=turn.speaker,
        )

    def _score_pieces(self, samples: Floats) -> tuple[Floats, float, Floats]:
        """Probabilities, distance and projection; the mean of its pieces, if it is long."""
        longest = round(LONGEST_S * SAMPLE_RATE_HZ)
        pieces = [
            self.score(samples[start:end]) for start, end in windows(len(samples), longest, longest)
        ]
        distances = [float(self.memory.out_of_domain(embedding)[0]) for _, embedding, _ in pieces]
        return (
            np.mean([probabilities[0] for probabilities, *_ in pieces], axis=0),
            float(np.mean(distances)),
            np.mean([projection[0] for *_, projection in pieces], axis=0),
        )

    def score(self, samples: Floats) -> tuple[Floats, Floats, Floats]:
        """Run the model on one window.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``; fewer than 512 are
                padded with zeros.

        Returns:
            Probabilities ``(1, num_emotions)``, embedding ``(1, D)``, projection ``(1, width)``.
        """
        check_abandoned()
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
            speaker=score.speaker,
        )


def _restrict(probabilities: Floats, allowed: list[int]) -> Floats:
    """Distribute the probability over the allowed emotions; evenly, if they have none of it."""
    kept = np.zeros_like(probabilities)
    kept[allowed] = probabilities[allowed] + np.float32(1e-12)
    restricted: Floats = kept / kept.sum()
    return restricted
