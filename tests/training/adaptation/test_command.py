"""``nnpm adapt`` from folder to bundle."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.jobs.folder import AdaptationTask
from nnpm.training import cli
from nnpm.training.adaptation import command
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.config import load as settings_of
from nnpm.training.adaptation.features import Encoder, extract_features
from nnpm.training.adaptation.methods import METHODS
from nnpm.training.adaptation.report import AdaptationReport, Evidence
from nnpm.training.errors import TrainingError
from tests.support.tiny_bundle import write_first_bundle

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "adapt.toml"
    path.write_text("steps = 20\nsource_batch = 16\ntarget_batch = 16\nfew_clips = 20\n")
    return path


@pytest.fixture
def adapt(base: Bundle, voices: Path, config: Path, capsys: Captured):
    """Run the command in this process; gives the document on standard output."""

    def run(out: Path, **changes: object) -> dict:
        options = {"bundle": base.path, "target": voices, "out": out, "config": config,
                   "method": "entropy"} | changes  # fmt: skip
        if {"emotions", "labels", "channels"} & changes.keys():
            settings = settings_of(options.pop("config"))
            task = AdaptationTask.model_validate({"threads": 2} | options)
            return command.adapt(task, settings).model_dump(mode="json")
        flags = [f"--{name}" for name, value in options.items() if value is True]
        pairs = [
            str(part)
            for name, value in options.items()
            if value is not True
            for part in (f"--{name}", value)
        ]
        capsys.readouterr()
        assert cli.main(["adapt", *pairs, *flags, "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return json.loads(lines[0])

    return run


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch):
    """Replace the evidence."""

    def says(word: str) -> None:
        evidence = Evidence.model_validate(
            {"verdict": word, "reasons": ("So it is.",), "estimated_accuracy": None,
             "figures": {"answers_changed": 0.5, "seen": 1.0}}
        )  # fmt: skip
        monkeypatch.setattr(
            "nnpm.training.adaptation.outcome.collect_evidence", lambda *_, **__: evidence
        )

    return says


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_document_and_the_card(adapt, verdict, base: Bundle, tmp_path: Path) -> None:
    verdict("improved")
    out = tmp_path / "new" / "bundle"
    document = adapt(out, language="UR-pk", seed=3)
    assert document.pop("warnings") == []
    report = AdaptationReport.model_validate(document)
    digest = (base.path / "bundle.sha256").read_text()[:64]
    assert document["base"] == {"version": "7", "digest": digest}
    assert document["language"] == "ur-PK"
    assert document["clips"] == {"accepted": 24, "skipped": {}, "examples": {}, "passed_over": {}}
    assert (document["method"], document["seed"], document["windows"]) == ("entropy", 3, 24)
    assert (document["verdict"], document["reasons"]) == ("improved", ["So it is."])
    assert document["estimated_accuracy"] is None
    assert list(document["seconds"]) == ["listen", "adapt", "judge", "publish"]
    assert document["bundle"] == str(out)

    card = bundles.load(out).card
    assert card.parent == digest
    assert card.language == "ur-PK"
    assert card.calibrated is False
    assert card.labels == base.labels
    assert card.metrics["adaptation"] == report.for_card()
    assert document["answered_share"]["after"] >= document["answered_share"]["before"] > 0
    for side in ("before", "after"):
        assert sum(document["emotions"][side].values()) == pytest.approx(1.0)
    assert len(document["changed_clips"]) == min(20, document["changed"]) > 0
    assert card.emotions == ()
    assert card.training["adaptation"]["config"]["steps"] == 20
    assert str(tmp_path) not in (out / "bundle.json").read_text()
    text = (out / "README.md").read_text()
    for topic in (digest, "ur-PK", "24 used", "improved", "So it is.", "Article 5(1)(f)", "none"):
        assert topic in text


def test_skipped_files_are_counted_and_up_to_five_are_named(
    adapt, verdict, voices: Path, tmp_path: Path
) -> None:
    verdict("improved")
    folder = shutil.copytree(voices, tmp_path / "voices")
    for number in range(7):
        (folder / f"broken {number}.mp3").write_bytes(b"nothing")
    shutil.copy(folder / "00.wav", folder / "copy.wav")
    (folder / "notes.txt").write_text("no audio")
    out = tmp_path / "bundle"
    document = adapt(out, target=folder)
    assert document["clips"] == {
        "accepted": 24,
        "skipped": {"duplicate": 1, "undecodable": 7},
        "examples": {
            "duplicate": ["copy.wav"],
            "undecodable": [f"broken {number}.mp3" for number in range(5)],
            "not_audio": ["notes.txt"],
        },
        "passed_over": {"not_audio": 1},
    }
    card = (out / "bundle.json").read_text()
    assert "broken" not in card  # names of a user's files stay at home
    assert bundles.load(out).card.metrics["adaptation"]["clips"]["skipped"]["undecodable"] == 7


def test_the_bundle_answers_as_the_report_says(
    adapt, verdict, base: Bundle, voices: Path, tmp_path: Path
) -> None:
    verdict("improved")
    document = adapt(tmp_path / "bundle", seed=1)
    old, new = Recognizer(base), Recognizer(bundles.load(tmp_path / "bundle"))
    changed = {clip["path"]: clip for clip in document["changed_clips"]}
    answered = {"before": 0, "after": 0}
    for path in sorted(voices.iterdir()):
        before, after = (recognizer.answer(decode(path)) for recognizer in (old, new))
        answered["before"] += before.emotion is not None
        answered["after"] += after.emotion is not None
        best = [max(one.scores, key=one.scores.__getitem__) for one in (before, after)]
        if path.name in changed:
            clip = changed[path.name]
            assert best == [clip["before"], clip["after"]]
            assert after.scores[best[1]] == pytest.approx(clip["confidence"], abs=1e-4)
        elif len(changed) < 20:
            assert best[0] == best[1]
    for side, count in answered.items():
        assert document["answered_share"][side] == pytest.approx(count / 24)
    # the memory is the base's, byte by byte: it is standardised, whatever the target's statistics
    assert (
        files(tmp_path / "bundle")["memory.safetensors"] == files(base.path)["memory.safetensors"]
    )


def test_known_emotions_are_the_new_default_and_are_kept_in_the_next_adaptation(
    adapt, verdict, voices: Path, tmp_path: Path
) -> None:
    verdict("improved")
    document = adapt(tmp_path / "1", emotions=("sad", "angry"))
    assert document["default_emotions"] == ["sad", "angry"]
    assert set(document["emotions"]["after"]) <= {"sad", "angry"}
    bundle = bundles.load(tmp_path / "1")
    assert bundle.card.emotions == ("sad", "angry")
    assert "--emotions sad angry" in (tmp_path / "1" / "README.md").read_text()
    answer = Recognizer(bundle).answer(decode(voices / "03.wav"))
    assert {name for name, score in answer.scores.items() if score} == {"sad", "angry"}
    assert adapt(tmp_path / "2", bundle=tmp_path / "1")["default_emotions"] == ["sad", "angry"]


def test_a_few_labels_are_used_and_leave_no_name_behind(
    adapt, verdict, voices: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    lines = [f"{number:02}.wav,{('angry', 'sad')[number % 2]}" for number in range(22)]
    table.write_text("\n".join(["path,emotion", *lines]))
    verdict("improved")
    document = adapt(tmp_path / "bundle", labels=table)
    assert document["labels"] == 22
    assert 0.0 <= document["estimated_accuracy"]["value"] <= 1.0
    assert document["evidence"]["labelled_accuracy"] <= 1.0
    card = bundles.load(tmp_path / "bundle").card
    assert card.calibrated is True
    assert card.decision.vote_weight == 0.0
    assert "fitted to 22 labelled clips" in (tmp_path / "bundle" / "README.md").read_text()
    table.write_text("\n".join(["path,emotion", *lines[:19]]))
    document = adapt(tmp_path / "fewer", labels=table)
    assert document["labels"] == 19
    assert bundles.load(tmp_path / "fewer").card.calibrated is False


def test_labels_outside_the_emotions_are_refused_and_those_of_unused_files_are_told(
    adapt, verdict, voices: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verdict("improved")
    folder = tmp_path / "voices"
    shutil.copytree(voices, folder)
    (folder / "broken.wav").write_bytes(b"RIFF")
    table = tmp_path / "labels.csv"
    table.write_text("path,emotion\n00.wav, Sad\nbroken.wav,happy\n")
    with pytest.raises(TrainingError, match="labels name happy; the emotions that occur are said"):
        adapt(tmp_path / "out", target=folder, labels=table, emotions=("sad", "angry"))
    assert adapt(tmp_path / "out", target=folder, labels=table)["labels"] == 1
    assert "1 of the 2 labelled recordings are not used" in caplog.text


def test_nothing_of_a_clip_is_in_any_file_of_the_bundle(
    adapt, verdict, base: Bundle, voices: Path, tmp_path: Path
) -> None:
    """No name or path, no samples, and no row of any tensor that is a clip's feature."""
    verdict("improved")
    folder = tmp_path / "private recordings"
    folder.mkdir()
    for number, path in enumerate(sorted(voices.iterdir())):
        shutil.copy(path, folder / f"patient{number:02}.wav")
    (folder / "patient99.mp3").write_bytes(b"nothing")
    table = tmp_path / "labels.csv"
    table.write_text("path,emotion\npatient03.wav,sad\n")
    out = tmp_path / "bundle"
    adapt(out, target=folder, labels=table)
    encoder = Encoder(base.path / "model.onnx", 0, seed=0)
    found = extract_features(folder, encoder, 3.0, AdaptConfig(), threads=1)
    pooled, head = found.target().pooled, bundles.load(out).head()
    secrets = {
        "features": pooled,
        "standardised features": head.standardise(pooled),
        "by the base's statistics": base.head().standardise(pooled),
        "projections": head.project(head.standardise(pooled)),
    }
    samples = [decode(path).waveforms[0].samples for path in sorted(voices.iterdir())]
    for path in out.iterdir():
        data = path.read_bytes()
        for word in (b"patient", b"private recordings", str(tmp_path).encode(), b"labels.csv"):
            assert word not in data, (path, word)
        for clip in samples:
            assert clip[4_000:4_016].tobytes() not in data, path
        for name, array in tensors(path).items():
            for what, rows in secrets.items():
                width = rows.shape[1]
                if array.size < width or array.size % width:
                    continue
                for matrix in (array.reshape(-1, width), array.reshape(width, -1).T):
                    apart = np.abs(matrix[:, None] - rows[None]).max(2)
                    assert apart.min() > 1e-3, (path, name, what)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a bundle's file, float32."""
    if path.suffix == ".onnx":
        graph = onnx.load(path).graph
        found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        found = load_file(path)
    elif path.suffix == ".npz":
        with np.load(path) as file:
            found = dict(file)
    else:
        found = {}
    return {name: array.astype(np.float32) for name, array in found.items()}


def test_source_only_gives_the_parents_answers(
    adapt, base: Bundle, voices: Path, tmp_path: Path
) -> None:
    document = adapt(tmp_path / "bundle", method="source_only")
    assert document["verdict"] == "no change"
    old, new = Recognizer(base), Recognizer(bundles.load(tmp_path / "bundle"))
    for name in ("00.wav", "11.wav"):
        recording = decode(voices / name)
        expected, found = old.answer(recording), new.answer(recording)
        assert found.scores == pytest.approx(expected.scores, abs=1e-6)
        assert found.out_of_domain == pytest.approx(expected.out_of_domain, abs=1e-4)


def test_an_adapted_bundle_can_be_adapted_again(adapt, verdict, tmp_path: Path) -> None:
    verdict("improved")
    adapt(tmp_path / "1", seed=1)
    adapt(tmp_path / "2", bundle=tmp_path / "1", seed=2, language="de")
    card = bundles.load(tmp_path / "2").card
    assert card.parent == (tmp_path / "1" / "bundle.sha256").read_text()[:64]
    assert card.metrics["adaptation"]["base"]["version"] == "1"
    Recognizer(bundles.load(tmp_path / "2"))


@pytest.mark.parametrize("method", ["adabn", "entropy"])
def test_the_same_seed_gives_the_same_bundle(
    adapt, verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    verdict("improved")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name, threads in (("a", 1), ("b", 3)):
        adapt(tmp_path / name, method=method, seed=4, threads=threads)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert bundles.load(tmp_path / "a").card.created_at == "2023-11-14T22:13:20+00:00"
    if method == "entropy":
        adapt(tmp_path / "c", method=method, seed=5)
        weights = [files(tmp_path / name)["head.safetensors"] for name in "ac"]
        assert weights[0] != weights[1]


def test_it_runs_where_torch_is_not_installed(
    base: Bundle, voices: Path, config: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'nnpm'\n"
        "from nnpm.training import cli; code = cli.main(sys.argv[1:])\n"
        "heavy = {'torch', 'torchaudio', 'audiomentations', 'onnxscript'} & {n for n, m in "
        "sys.modules.items() if m}\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    out = tmp_path / "bundle"
    found = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", program, "adapt", "--bundle", base.path]
        + ["--target", voices, "--out", out, "--config", config, "--json", "--force"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["bundle"] == str(out)
    Recognizer(bundles.load(out))


def test_no_model_is_improved_that_answers_less(
    adapt, verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict("improved")
    monkeypatch.setattr(
        "nnpm.training.adaptation.outcome.adapt_decision",
        lambda base, *_, **__: base.model_copy(update={"low_confidence": 1.0}),
    )
    document = adapt(tmp_path / "bundle")
    assert document["verdict"] == "no change"
    assert document["answered_share"]["after"] == 0.0
    assert "It would answer 0.0% of the clips; the base answers" in document["reasons"][0]


def test_reject_writes_nothing_unless_forced(adapt, verdict, tmp_path: Path) -> None:
    verdict("reject")
    out = tmp_path / "out" / "bundle"
    document = adapt(out)
    assert (document["verdict"], document["bundle"]) == ("reject", None)
    assert not out.parent.exists()
    document = adapt(out, force=True)
    assert (document["verdict"], document["bundle"]) == ("reject", str(out))
    assert bundles.load(out).card.metrics["adaptation"]["verdict"] == "reject"


def test_people_are_told_in_lines(
    verdict, base: Bundle, voices: Path, config: Path, tmp_path: Path, capsys: Captured
) -> None:
    verdict("reject")
    command = ["adapt", "--bundle", str(base.path), "--target", str(voices), "--method", "adabn"]
    assert cli.main([*command, "--out", str(tmp_path / "b"), "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["clips     24 used", "skipped   none"]
    assert lines[2].startswith("answered  ")
    assert "verdict   reject" in lines
    assert "the base stays" in lines[-1]


def test_wrong_input_is_one_line_and_exit_2(
    base: Bundle, voices: Path, tmp_path: Path, capsys: Captured
) -> None:
    def fails(**changes: object) -> str:
        options = {"bundle": base.path, "target": voices, "out": tmp_path / "out",
                   "method": "adabn"} | changes  # fmt: skip
        pairs = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        capsys.readouterr()
        assert cli.main(["adapt", *pairs, "--json"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return captured.err

    assert "method is 'magic'; it must be one of source_only" in fails(method="magic")
    assert "language is 'urdu'; it must be a BCP-47 tag" in fails(language="urdu")
    assert "it must be a BCP-47 tag" in fails(language="x y")
    assert "there is no folder" in fails(target=tmp_path / "nowhere")
    assert "is not a bundle" in fails(bundle=voices)
    assert "exists; bundles are not overwritten" in fails(out=base.path)
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(voices / "00.wav", few)
    assert "1 of the 1 audio files" in fails(target=few)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("stepz = 3")
    assert "wrong.toml: there is no setting stepz" in fails(config=wrong)


def test_a_base_of_the_first_generation_is_refused_by_the_name_of_the_new_one(
    voices: Path, tmp_path: Path, capsys: Captured
) -> None:
    first = write_first_bundle(tmp_path / "first")
    command = ["adapt", "--bundle", str(first.path), "--target", str(voices)]
    assert cli.main([*command, "--method", "adabn", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is of the first generation, which answers but cannot be adapted" in error
    assert "take default/2 as the base" in error


def test_emotions_that_the_model_does_not_know_are_refused(base: Bundle, voices: Path, tmp_path):
    def task(*emotions: str) -> AdaptationTask:
        return AdaptationTask(
            bundle=base.path, target=voices, out=tmp_path / "out", threads=1, emotions=emotions
        )

    with pytest.raises(TrainingError, match="emotions has fear; the model knows angry"):
        command.adapt(task("sad", "fear"), AdaptConfig())
    table = tmp_path / "labels.csv"
    table.write_text("path,emotion\n00.wav,disgust\n")
    with pytest.raises(TrainingError, match="the labels name disgust; the model knows angry"):
        command.adapt(task().model_copy(update={"labels": table}), AdaptConfig())


def test_an_interrupt_leaves_nothing_and_exits_130(
    base: Bundle, voices: Path, tmp_path: Path
) -> None:
    config = tmp_path / "long.toml"
    config.write_text("steps = 100000000\nfew_clips = 0")
    out = tmp_path / "out" / "bundle"
    # says when the steps begin, however busy the machine is
    program = (
        "import sys; from nnpm.training import cli; from nnpm.training.adaptation import outcome\n"
        "steps = outcome.adapt_head\n"
        "def told(*given, **named):\n"
        "    print('ready', file=sys.stderr, flush=True); return steps(*given, **named)\n"
        "outcome.adapt_head = told; sys.exit(cli.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, "adapt", "--bundle", base.path, "--json"]
        + ["--target", voices, "--out", out, "--config", config, "--method", "entropy"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # what a shell starts in the background inherits that interrupts are ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output == ""
    assert error == "nnpm: interrupted; no incomplete file is left\n"
    assert not out.parent.exists()


def test_an_interrupt_while_publishing_leaves_nothing(
    adapt, verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    verdict("improved")
    written: list[Path] = []

    def interrupt(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        written.append(path)
        if path.name == "probe.npz" and tmp_path in path.parents:
            raise KeyboardInterrupt

    monkeypatch.setattr("nnpm.service.inference.bundle._write_synced", interrupt)
    with pytest.raises(AssertionError):
        adapt(tmp_path / "out" / "bundle")
    assert "interrupted" in capsys.readouterr().err
    assert any("out" in path.parts for path in written)
    assert list((tmp_path / "out").iterdir()) == []


def test_every_method_is_in_the_help_of_its_refusal() -> None:
    assert list(METHODS)[:2] == ["source_only", "adabn"]


def test_names_that_are_not_utf8_are_used_and_named(adapt, voices: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(voices, folder)
    used = next(folder.glob("*.wav"))
    used.rename(used.with_name(os.fsdecode(b"caf\xe9.wav")))
    (folder / os.fsdecode(b"bad\xfe.wav")).write_bytes(b"RIFF")
    report = adapt(tmp_path / "out", target=folder, force=True)
    assert report["clips"]["examples"]["undecodable"] == [r"bad\xfe.wav"]
    assert report["clips"]["accepted"] == adapt(tmp_path / "b", force=True)["clips"]["accepted"]
