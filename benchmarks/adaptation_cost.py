"""What adaptation costs: against one pass of the encoder, by clips, and by slots of the memory.

    python -m benchmarks.adaptation_cost --data DIR/urdu [--bundle models/default/2]

Every measurement runs in a process of its own, one after the other, and reports its peak of
resident memory. Where the folder has too few clips, they are repeated, each a little quieter.
Linux only. Writes benchmarks/results/adaptation_cost.json and .md.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile
import torch

from benchmarks.provenance import RESULTS, ROOT, provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.formats import audio_files
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ
from nnpm.service.jobs.folder import AdaptationTask
from nnpm.training.adaptation.command import adapt, one_torch_thread
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.decision import adapt_decision
from nnpm.training.adaptation.evidence import collect_evidence
from nnpm.training.adaptation.features import FeatureViews, extract_features
from nnpm.training.adaptation.head import Source
from nnpm.training.adaptation.train import adapt_head
from nnpm.training.bundle.parts import restore_network

CLIPS = (100, 200, 400, 1600)
SLOTS = (4_000, 100_000)
SLOTS_CLIPS = 400
GOAL = 3.0
"""Of the time with the many slots, over that with the few."""
QUIETER = 0.995
METHOD = "nnpm"

Figures = dict[str, Any]


def fill(folder: Path, data: Path, count: int) -> None:
    """Put ``count`` clips into a folder: the first of ``data``, then the same ones quieter."""
    files = audio_files(data).recordings
    if not files:
        raise SystemExit(f"{data} holds no audio")
    for number in range(count):
        again, path = divmod(number, len(files))
        name = folder / f"{number:05}"
        if not again:
            shutil.copyfile(files[path], name.with_suffix(files[path].suffix))
            continue
        samples = decode(files[path]).waveforms[0].samples
        soundfile.write(
            name.with_suffix(".wav"), QUIETER**again * samples, SAMPLE_RATE_HZ, subtype="FLOAT"
        )


def one_pass(bundle: Path, folder: Path, threads: int, _slots: int) -> Figures:
    """Decode and pool, without views: as ``adapt`` does it."""
    base = bundles.load(bundle)
    extractor = FeatureViews(restore_network(base), num_views=0, seed=0)
    start = time.perf_counter()
    features = extract_features(folder, extractor, base.card, _config(), threads=threads)
    return {"seconds": time.perf_counter() - start, "clips": features.accepted}


def whole(bundle: Path, folder: Path, threads: int, _slots: int) -> Figures:
    """``nnpm adapt``, from loading the base to the written bundle."""
    with tempfile.TemporaryDirectory() as out:
        task = AdaptationTask(
            bundle=bundle,
            target=folder,
            out=Path(out) / "adapted",
            method=METHOD,
            threads=threads,
            force=True,
        )
        start = time.perf_counter()
        report = adapt(task, _config())
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "clips": report.clips.accepted, "stages": report.seconds}


def head_alone(bundle: Path, folder: Path, threads: int, slots: int) -> Figures:
    """Adapt, judge and decide with a memory of so many slots, drawn from the bundle's own."""
    base = bundles.load(bundle)
    network, known = restore_network(base), Source.from_memory(base.memory())
    config = _config()
    extractor = FeatureViews(network, config.views, seed=0)
    target = extract_features(folder, extractor, base.card, config, threads=threads).target()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(known.emotion), (slots,), generator=generator)
    noise = torch.randn(slots, known.pooled.shape[1], generator=generator)
    pooled = noise.mul_(0.3 * known.pooled.std(0)).add_(known.pooled[chosen])
    source = Source(pooled, known.emotion[chosen])
    start = time.perf_counter()
    adapted = adapt_head(network.head, source, target, METHOD, config, 0)
    trained = time.perf_counter()
    evidence = collect_evidence(network.head, adapted, source, target, base.labels)
    judged = time.perf_counter()
    adapt_decision(base.card.decision, adapted, source, target, base.labels, evidence, config)
    end = time.perf_counter()
    stages = {"adapt": trained - start, "judge": judged - trained, "decide": end - judged}
    return {"seconds": end - start, "clips": len(target.pooled), "stages": stages}


JOBS = {job.__name__: job for job in (one_pass, whole, head_alone)}


def _config() -> AdaptConfig:
    return AdaptConfig(min_clips=1)


def measure(job: str, options: argparse.Namespace, folder: str, slots: int = 0) -> Figures:
    """Run one job in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.adaptation_cost", "--job", job, "--data", folder]
    command += ["--bundle", str(options.bundle), "--threads", str(options.threads)]
    command += ["--num-slots", str(slots)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: Figures = json.loads(done.stdout)
    print(job, slots or "", found)
    return found


def perform(options: argparse.Namespace) -> None:
    """Do one job here, and print its figures."""
    with one_torch_thread():
        found = JOBS[options.job](options.bundle, options.data, options.threads, options.num_slots)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**found, "peak_mib": round(peak_kib / 1024)}))


def table(by_clips: list[Figures], by_slots: list[Figures]) -> str:
    """Both tables as Markdown."""
    lines = [
        "| clips | one pass of the encoder | adapt | ratio | peak memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['adapt']['clips']} | {row['pass']['seconds']:.1f} s "
        f"| {row['adapt']['seconds']:.1f} s | {row['ratio']:.2f} "
        f"| {row['adapt']['peak_mib']} MiB |"
        for row in by_clips
    ]
    lines += [
        "",
        f"| slots of the memory, {by_slots[0]['clips']} clips | adapt, judge and decide "
        f"| ratio (goal: at most {GOAL:g}) | peak memory |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['slots']:,} | {row['seconds']:.1f} s | {row['ratio']:.2f} "
        f"| {row['peak_mib']} MiB |"
        for row in by_slots
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of audio")
    parser.add_argument("--bundle", type=Path, default=Path("models/default/2"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clips", type=int, nargs="+", default=CLIPS)
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--num-slots", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.bundle, options.data = options.bundle.resolve(), options.data.resolve()
    if options.job:
        perform(options)
        return
    by_clips: list[Figures] = []
    by_slots: list[Figures] = []
    for count in options.clips:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), options.data, count)
            passed = measure("one_pass", options, folder)
            adapted = measure("whole", options, folder)
        ratio = adapted["seconds"] / passed["seconds"]
        by_clips.append({"pass": passed, "adapt": adapted, "ratio": ratio})
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), options.data, min(SLOTS_CLIPS, max(options.clips)))
        for slots in options.slots:
            found = measure("head_alone", options, folder, slots)
            first = by_slots[0]["seconds"] if by_slots else found["seconds"]
            by_slots.append({"slots": slots, **found, "ratio": found["seconds"] / first})
    facts = provenance(f"benchmarks/adaptation_cost.py ({METHOD}, {options.threads} threads)")
    facts["torch"] = torch.__version__
    result = {**facts, "by_clips": by_clips, "by_slots": by_slots}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "adaptation_cost.json").write_text(json.dumps(result, indent=1) + "\n")
    write("adaptation_cost", table(by_clips, by_slots), facts)


if __name__ == "__main__":
    main()
