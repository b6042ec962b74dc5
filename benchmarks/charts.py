"""Draw the charts of README and docs from the committed results: python -m benchmarks.charts.

Writes docs/charts/: UAR before and after adaptation, coverage against accuracy, and the timeline of
a two-party call (``--data DIR`` scores it anew).
"""

import argparse
import json
import tempfile
from pathlib import Path

import pandas as pd
import soundfile
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.calls import CONDITIONS, load_clips
from benchmarks.provenance import RESULTS, ROOT, provenance
from benchmarks.readme import BUNDLES, CORPORA, main_rows
from nnpm.training.benchmark.charts import COLOURS, to_svg
from tests.support.calls import two_party_call

CALL = RESULTS / "call.json"
EMOTION_COLOURS = dict(
    zip(
        ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
        ("#c44e52", "#8c613c", "#8172b3", "#ccb974", "#9aa5b1", "#4c72b0", "#da8bc3"),
        strict=True,
    )
)
UNSURE = "#e8e8e8"


def main() -> None:
    """Draw all charts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/charts")
    parser.add_argument("--data", type=Path, help="folder of corpora: score the call anew")
    options = parser.parse_args()
    if options.data:
        score_call(options.data)
    draw(options.out)


def draw(out: Path) -> None:
    """Write one SVG file a chart."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "accuracy.svg").write_text(accuracy_chart(), encoding="utf-8")
    points = pd.read_csv(RESULTS / "coverage.csv", skiprows=1)
    (out / "coverage.svg").write_text(coverage_chart(points), encoding="utf-8")
    (out / "call.svg").write_text(call_chart(json.loads(CALL.read_text())), encoding="utf-8")


def accuracy_chart() -> str:
    """UAR of both bundled models, as trained and adapted, for each test corpus."""
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for place, (model, folder) in zip(axes, BUNDLES.items(), strict=True):
        rows: pd.DataFrame = main_rows(folder).set_index(["target", "method"])
        for shift, method, colour, name in (
            (-0.2, "source_only", COLOURS[7 % len(COLOURS)], "as trained"),
            (0.2, "nnpm", COLOURS[0], "adapted without labels"),
        ):
            heights = [float(rows.loc[(target, method), "uar"]) for target in CORPORA]
            positions = [index + shift for index in range(len(CORPORA))]
            place.bar(positions, heights, width=0.38, color=colour, label=name)
        place.axhline(0.25, color="#666666", linewidth=0.8, linestyle=":")
        place.set_xticks(range(len(CORPORA)), [name for name, _ in CORPORA.values()])
        place.set_title(f"models/{model}", fontsize="medium")
        place.set_ylim(0, 1)
    axes[0].set_ylabel("UAR of four emotions")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return to_svg(figure)


def coverage_chart(points: pd.DataFrame) -> str:
    """Accuracy of the surest clips against their share, a line for each set of clips."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, curve), colour in zip(points.groupby("clips", sort=False), COLOURS, strict=False):
        axes.plot(curve["coverage"], curve["accuracy"], color=colour, label=name, marker=".")
    axes.set(xlabel="share answered, the surest first", ylabel="accuracy of the answered clips")
    axes.set(xlim=(0, 1.02), ylim=(0, 1))
    axes.grid(color="#dddddd")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return to_svg(figure)


def score_call(data: Path) -> None:
    """Score a synthetic call of Hindi clips with the bundled model; keep what the chart shows."""
    from nnpm.service.inference import bundle as bundles
    from nnpm.service.inference.answer import Options
    from nnpm.service.inference.audio.decode import decode
    from nnpm.service.inference.recognizer import Recognizer

    condition = CONDITIONS["8 kHz"]
    clips = load_clips(data / "hindi", condition, 16, seed=3)
    samples, turns = two_party_call(
        [clip.samples for clip in clips], condition.rate, condition.line, 3
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "call.wav"
        soundfile.write(path, samples, condition.rate)
        recording = decode(path, channels="split")
        recognizer = Recognizer(bundles.load(ROOT / "models/default/2"))
        answer = recognizer.answer(recording, Options())
        recording.close()
    document = {
        "segments": [
            {
                "start_s": round(s.start_s, 2),
                "end_s": round(s.end_s, 2),
                "channel": s.channel,
                "emotion": s.emotion,
            }
            for s in answer.segments
        ],
        "turns": len(turns),
        "provenance": provenance("python -m benchmarks.charts --data DIR"),
    }
    CALL.write_text(json.dumps(document, indent=1) + "\n")


def call_chart(document: dict[str, list[dict[str, object]]]) -> str:
    """The turns of a call, a row per channel, coloured by what was answered."""
    figure = Figure(figsize=(7.2, 1.6), layout="constrained")
    axes = figure.subplots()
    shown = set()
    for segment in document["segments"]:
        emotion = segment["emotion"]
        colour = EMOTION_COLOURS.get(str(emotion), UNSURE)
        shown.add((str(emotion or "not sure"), colour))
        start, end = float(str(segment["start_s"])), float(str(segment["end_s"]))
        axes.broken_barh(
            [(start, end - start)], (-int(str(segment["channel"])) - 0.4, 0.8), color=colour
        )
    axes.set_yticks([0, -1], ["channel 0", "channel 1"])
    axes.set_xlabel("seconds")
    handles = [Patch(color=colour, label=name) for name, colour in sorted(shown)]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=8, frameon=False, fontsize="small"
    )
    return to_svg(figure)


if __name__ == "__main__":
    main()
