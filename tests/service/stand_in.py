"""A recognizer without a model, for tests of what lies around it."""

from collections.abc import Callable
from types import SimpleNamespace

from service.inference.answer import Answer, Neighbour, Options, Segment
from service.inference.audio import Recording
from service.inference.bundle import Card, Decision

SCORES = {"angry": 0.7, "happy": 0.15, "neutral": 0.1, "sad": 0.05}


def card() -> Card:
    return Card(
        created_at="2025-01-01T00:00:00Z",
        nnpm_version="0",
        labels=tuple(SCORES),
        window_s=3.0,
        hop_s=1.5,
        decision=Decision(
            temperature=1,
            vote_weight=0,
            vote_temperature=1,
            vote_slots=1,
            low_confidence=0,
            out_of_domain=1,
            domain_slots=1,
            domain_midpoint=0,
            domain_slope=1,
        ),
        calibrated=True,
        source_languages=("en",),
        licence="none",
        training={},
        metrics={"uar": 0.5},
    )


class StandIn:
    """Answers every recording alike; ``before`` is called first, and may wait or raise."""

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(card=card())
        self.before: Callable[[Recording], None] = lambda _: None

    def answer(self, recording: Recording, options: Options = Options()) -> Answer:  # noqa: B008
        self.before(recording)
        answers = [
            self._one(recording, channel, options) for channel in range(len(recording.waveforms))
        ]
        if len(answers) == 1:
            return answers[0]
        segments = tuple(segment for answer in answers for segment in answer.segments)
        return Answer(
            "angry", 0.7, SCORES, False, (), 0.25, 0.9, segments,
            answers[0].neighbours, per_channel=tuple(answers), inference_ms=1.0,
        )  # fmt: skip

    def _one(self, recording: Recording, channel: int, options: Options) -> Answer:
        end_s = recording.info.duration_s
        near = Neighbour("angry", 0.9, "corpus", "en")
        segment = Segment(0.0, end_s, channel, "angry", 0.7, SCORES, ())
        return Answer(
            "angry", 0.7, SCORES, False, (), 0.25, 0.9, (segment,),
            (near,) * options.neighbours, inference_ms=1.0,
        )  # fmt: skip
