"""Recording in, answer out: plan the windows, score them, decide, answer."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from .answer import (
    MAX_SILENT_WINDOWS,
    NO_EMBEDDING,
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
from .device import Device
from .errors import check_abandoned
from .first_generation import FirstModel
from .graphs import Floats, Model, Score
from .segments import ChannelCut, Plan, cut, plan, signal_reasons, windows
from .turns import LONGEST_S, Turn

_MIN_SAMPLES = 512  # the encoders' front ends need them; shorter windows are padded

_LONG_S = 20.0
"""Of a longer recording, returning memory and taking it again is less than a fifth of the time."""


class Recognizer:
    """A bundle that scores recordings; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: used by one inference.
        device: runs clips in batches; None for the processor, as a bundle of schema 1 always has.

    Raises:
        BundleError: if the bundle fails its golden probe, or its memory does not fit its graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1, device: Device | None = None) -> None:
        self.bundle = bundle
        self.model: FirstModel | Model
        if bundle.card.schema_version == 1:
            self.model = FirstModel(bundle, threads=threads)
        else:
            self.model = Model(bundle, threads=threads, device=device)

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
        runs = [
            turn.has_speech or plan.force or (index < MAX_SILENT_WINDOWS and not has_speech)
            for index, turn in enumerate(segments.turns)
        ]
        scored = [turn for turn, run in zip(segments.turns, runs, strict=True) if run]
        found = self._score_turns(waveform, scored)
        scores = [
            self._window(
                turn,
                plan,
                next(found) if run else None,
                reasons=signal_reasons(
                    turn.has_speech,
                    waveform.duration_s if segments.by_clock else turn.num_samples / SAMPLE_RATE_HZ,
                    clipped,
                ),
                channel=channel,
            )
            for turn, run in zip(segments.turns, runs, strict=True)
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
        offset: int = 0,
    ) -> WindowScore:
        """Score one turn or window.

        Args:
            waveform: that it is cut from.
            turn: in samples of the waveform.
            plan: names the allowed emotions.
            reasons: to abstain whatever the probabilities are.
            run_model: False gives all allowed emotions the same probability.
            offset: where the waveform starts in the recording, in samples.
        """
        found = next(self._score_turns(waveform, [turn])) if run_model else None
        return self._window(turn, plan, found, reasons=reasons, offset=offset)

    def _window(
        self,
        turn: Turn,
        plan: Plan,
        found: Score | None,
        *,
        reasons: tuple[Reason, ...],
        channel: int = 0,
        offset: int = 0,
    ) -> WindowScore:
        """What the model found of a turn, as a window of the recording; None if it was not run."""
        score = found or Score(np.zeros(len(self.bundle.labels), np.float32), 0.0, NO_EMBEDDING)
        return WindowScore(
            start_s=(offset + turn.start) / SAMPLE_RATE_HZ,
            end_s=(offset + turn.end) / SAMPLE_RATE_HZ,
            channel=channel,
            probabilities=_restrict(score.probabilities, plan.allowed),
            out_of_domain=score.out_of_domain,
            embedding=score.embedding,
            reasons=reasons,
            weight_s=turn.num_samples / SAMPLE_RATE_HZ,
            scored=found is not None,
            speaker=turn.speaker,
        )

    def _score_turns(self, waveform: Waveform, turns: Sequence[Turn]) -> Iterator[Score]:
        """Score turns; of a long one, the mean of its pieces."""
        longest = round(LONGEST_S * SAMPLE_RATE_HZ)
        pieces = [windows(turn.num_samples, longest, longest) for turn in turns]

        def clips() -> Iterator[Floats]:
            for turn, bounds in zip(turns, pieces, strict=True):
                samples = turn.samples(waveform)
                for start, end in bounds:
                    check_abandoned()
                    yield _padded(samples[start:end])

        found = self.model.score_each(clips())
        for bounds in pieces:
            scores = list(islice(found, len(bounds)))
            if len(scores) == 1:
                yield scores[0]
                continue
            yield Score(
                np.mean([one.probabilities for one in scores], axis=0),
                float(np.mean([one.out_of_domain for one in scores])),
                np.mean([one.embedding for one in scores], axis=0),
            )

    def score(self, samples: Floats) -> Score:
        """Run the model on one window.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``; fewer than 512 are
                padded with zeros.
        """
        check_abandoned()
        return self.model.score(_padded(samples))

    def release_after(self, duration_s: float) -> None:
        """Return memory to the system, if a recording was so long that this pays.

        Windows of 10 s take 60 MB, which are kept for the next one: taking them anew from the
        system for each costs a quarter of the time.
        """
        if duration_s > _LONG_S:
            self.model.release()

    def decide(self, scores: ChannelScores, options: Options) -> Answer:
        """Decide for the whole and for each window.

        Args:
            scores: of one channel, or of all together.
            options: as for :meth:`answer`; checked by :meth:`plan` before.
        """
        whole = self.decide_window(scores.whole, options)
        if _is_its_window(scores):
            segments: tuple[Segment, ...] = (whole,)
        else:
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
            neighbours=self.model.nearest(scores.whole.embedding, options.neighbours),
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


def _is_its_window(scores: ChannelScores) -> bool:
    """Whether the whole is one window, so that what is decided of one holds for the other."""
    if len(scores.windows) != 1:
        return False
    (window,), whole = scores.windows, scores.whole
    is_same = window.probabilities is whole.probabilities and window.reasons == whole.reasons
    return is_same and window.scored and window.speaker is None


def _padded(samples: Floats) -> Floats:
    missing = _MIN_SAMPLES - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def _restrict(probabilities: Floats, allowed: list[int]) -> Floats:
    """Distribute the probability over the allowed emotions; evenly, if they have none of it."""
    kept = np.zeros_like(probabilities)
    kept[allowed] = probabilities[allowed] + np.float32(1e-12)
    restricted: Floats = kept / kept.sum()
    return restricted
