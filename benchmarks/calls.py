"""How well turns are found and scored in two-party calls that are built from a corpus's clips.

    python -m benchmarks.calls --corpora crema hindi --turns 300 --out calls

The figure is the unweighted average recall per turn of ``channels=split`` without abstention over
four emotions. A turn's answer is that of the segment that covers its middle; where none does, the
turn is wrong. It stands beside the same figure for the exact turns: the clips at the rate of the
call, cut out before noise is added.
"""

import argparse
import csv
import io
import random
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.provenance import machine_load, provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.answer import Answer, Options
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.speech import trim_edges
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.evaluation import unweighted_average_recall
from tests.support.calls import Line, TrueTurn, two_party_call

Floats = NDArray[np.floating]

EMOTIONS = ("angry", "happy", "neutral", "sad")
TURNS_PER_CALL = 30


@dataclass(frozen=True, slots=True)
class Condition:
    """A kind of call.

    Attributes:
        rate: sample rate in Hz.
        line: what happens to the voices on their way.
        cut: whether clips are cut and joined to turns of 0.4 to 10 s.
    """

    rate: int = SAMPLE_RATE_HZ
    line: Line = Line()  # noqa: RUF009 (frozen)
    cut: bool = False


CONDITIONS = {
    "silent line": Condition(),
    "8 kHz": Condition(rate=8_000),
    "noise at -55 dB": Condition(line=Line(noise_db=-55)),
    "8 kHz, noise at -45 dB": Condition(rate=8_000, line=Line(noise_db=-45)),
    "MP3": Condition(line=Line(mp3=True)),
    "overlaps": Condition(line=Line(overlap=0.4, noise_db=-65)),
    "echo at -22 dB": Condition(line=Line(echo_db=-22, noise_db=-65)),
    "turns of 0.4 to 10 s": Condition(line=Line(noise_db=-65), cut=True),
    "comfort noise": Condition(line=Line(noise_db=-50, comfort=True)),
    "one far, echo at -25 dB": Condition(line=Line(far_db=-20, echo_db=-25, noise_db=-75)),
    "hum, offset, clipping": Condition(line=Line(hum_db=-38, offset=0.02, gain_db=12)),
    "pauses of up to 30 s": Condition(line=Line(pause_s=(0.5, 30), noise_db=-60)),
    "8 kHz, all of it": Condition(
        rate=8_000, line=Line(overlap=0.2, noise_db=-55, echo_db=-25, mp3=True), cut=True
    ),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """Speech of one emotion at the rate of the call."""

    samples: Floats
    emotion: str


def load_clips(corpus: Path, condition: Condition, count: int, seed: int) -> list[Clip]:
    """Draw clips of the four emotions, at a common peak.

    Those that are joined are trimmed: their edges would be pauses in the middle of a turn.
    """
    with (corpus / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["emotion"] in EMOTIONS]
    random.Random(seed).shuffle(rows)
    clips = []
    for row in rows[:count]:
        waveform = decode(corpus / row["path"]).waveforms[0]
        samples = (trim_edges(waveform) if condition.cut else waveform).samples
        samples = soxr.resample(samples, SAMPLE_RATE_HZ, condition.rate)
        samples *= 0.3 / max(np.abs(samples).max(), 1e-3)
        clips.append(Clip(samples, row["emotion"]))
    return clips


def turns_of_all_lengths(clips: Sequence[Clip], rate: int, seed: int) -> list[Clip]:
    """Cut clips, or join several of one emotion, so that they last 0.4 to 10 s."""
    rng = np.random.default_rng(seed)
    made = []
    for clip in clips:
        length = round(rate * 0.4 * 25 ** rng.random())
        samples = clip.samples
        alike = [other.samples for other in clips if other.emotion == clip.emotion]
        while len(samples) < length:
            samples = np.concatenate([samples, alike[rng.integers(len(alike))]])
        loud = np.convolve(samples**2, np.ones(length), mode="valid")
        start = int(np.argmax(loud))  # a turn is no silence
        made.append(Clip(samples[start : start + length], clip.emotion))
    return made


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one kind of call.

    Attributes:
        turns: number of true turns.
        exact: UAR on the exact turns.
        found: UAR per turn of the calls.
        covered: share of turns whose middle a segment covers.
        outside: share of the segments' time in which their channel is silent.
    """

    turns: float
    exact: float
    found: float
    covered: float
    outside: float


def measure(
    recognizer: Recognizer, clips: Sequence[Clip], condition: Condition, options: Options, seed: int
) -> Figures:
    """Score the clips alone, and in calls."""
    exact, found, truth = [], [], [EMOTIONS.index(clip.emotion) for clip in clips]
    inside_s = total_s = 0.0
    whole = Options(abstain=False, emotions=EMOTIONS)
    for first in range(0, len(clips), TURNS_PER_CALL):
        some = [clip.samples for clip in clips[first : first + TURNS_PER_CALL]]
        exact += [_index(_answer(recognizer, clip, condition.rate, whole)) for clip in some]
        call, turns = two_party_call(some, condition.rate, condition.line, seed + first)
        answer = _answer(recognizer, call, condition.rate, options)
        found += _judge(answer, turns)
        for one in answer.segments:
            total_s += one.end_s - one.start_s
            inside_s += sum(
                max(0.0, min(one.end_s, turn.end_s) - max(one.start_s, turn.start_s))
                for turn in turns
                if turn.channel == one.channel
            )
    answers = np.array(found)
    return Figures(
        turns=len(clips),
        exact=unweighted_average_recall(np.array(truth), np.array(exact)),
        found=unweighted_average_recall(np.array(truth), answers),
        covered=float(np.mean(answers >= 0)),
        outside=1 - inside_s / total_s,
    )


def _answer(recognizer: Recognizer, samples: Floats, rate: int, options: Options) -> Answer:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    file.seek(0)
    return recognizer.answer(decode(file, channels="split"), options)


def _index(answer: Answer) -> int:
    return EMOTIONS.index(str(answer.emotion))


def _judge(answer: Answer, turns: Sequence[TrueTurn]) -> Iterator[int]:
    """The answer on each turn; -1 where no segment covers its middle."""
    for turn in turns:
        covering = [
            one
            for one in answer.segments
            if one.channel == turn.channel and one.start_s <= turn.middle_s < one.end_s
        ]
        nearest = min(
            covering,
            key=lambda one: abs(one.start_s + one.end_s - 2 * turn.middle_s),
            default=None,
        )
        yield -1 if nearest is None else EMOTIONS.index(str(nearest.emotion))


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("models/default/2"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="+", required=True)
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS))
    parser.add_argument("--turns", type=int, default=240, help="per corpus and kind of call")
    parser.add_argument("--segments", choices=["turns", "windows"], default="turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="corpora at a time")
    parser.add_argument("--out", metavar="NAME", help="write benchmarks/results/NAME.md")
    args = parser.parse_args()
    lines = [
        "| corpus | call | turns | exact | found | difference | covered | silence |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    by_call: dict[str, list[Figures]] = {name: [] for name in args.conditions}
    with ProcessPoolExecutor(args.jobs) as pool:
        measured = pool.map(partial(_corpus, args), args.corpora)
        for corpus, found in zip(args.corpora, measured, strict=True):
            for name, figures in zip(args.conditions, found, strict=True):
                by_call[name].append(figures)
                lines.append(_row(corpus, name, figures))
                print(lines[-1], flush=True)
    for name, all_ in by_call.items():
        means = (float(np.mean(one)) for one in zip(*map(astuple, all_), strict=True))
        lines.append(_row("**all**", name, Figures(*means)))
        print(lines[-1])
    if args.out:
        command = f"python -m benchmarks.calls {shlex.join(sys.argv[1:])}"
        write(args.out, "\n".join(lines), provenance(command) | machine_load())


def _corpus(args: argparse.Namespace, corpus: str) -> list[Figures]:
    """Measure all kinds of call with the clips of one corpus."""
    recognizer = Recognizer(bundles.load(args.bundle))
    options = Options(segments=args.segments, abstain=False, emotions=EMOTIONS)
    found = []
    for name in args.conditions:
        condition = CONDITIONS[name]
        clips = load_clips(args.data / corpus, condition, args.turns, args.seed)
        if condition.cut:
            clips = turns_of_all_lengths(clips, condition.rate, args.seed)
        found.append(measure(recognizer, clips, condition, options, args.seed))
    return found


def _row(corpus: str, name: str, figures: Figures) -> str:
    return (
        f"| {corpus} | {name} | {figures.turns:.0f} | {figures.exact:.3f} | {figures.found:.3f} | "
        f"{figures.found - figures.exact:+.3f} | {figures.covered:.3f} | {figures.outside:.2f} |"
    )


if __name__ == "__main__":
    main()
