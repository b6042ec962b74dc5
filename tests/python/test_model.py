"""``import nnpm``: models, answers and data frames."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile

import nnpm
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS


@pytest.fixture(scope="module")
def model(_two_versions: Path) -> nnpm.Model:
    return nnpm.load(_two_versions / "default" / "2")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    (folder / "below").mkdir(parents=True)
    (folder / "a.wav").write_bytes(encode(speechlike(7.0)))
    (folder / "below/b.flac").write_bytes(encode(speechlike(), container="FLAC"))
    (folder / "broken.wav").write_bytes(b"RIFF....WAVE nothing more")
    return folder


def test_the_package_is_light_and_names_what_it_has() -> None:
    code = """
import sys, nnpm
heavy = {"numpy", "pydantic", "pandas", "httpx2", "torch", "onnxruntime", "nnpm.service"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert set(nnpm.__all__) <= set(dir(nnpm))
nnpm.Client
heavy = {"pandas", "torch", "onnxruntime", "fastapi", "sqlalchemy", "nnpm.training"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import nnpm.service.cli.predict, nnpm.service.api.app
assert not {"pandas", "httpx2", "torch", "nnpm.training"} & set(sys.modules)
assert callable(nnpm.adapt) and callable(nnpm.load)
try:
    nnpm.nothing
except AttributeError:
    pass
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_is_loaded_by_name_version_and_folder(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    named, version = nnpm.load(), nnpm.load("default/1")
    assert (named.name, named.version, named.language) == ("default", "2", "und")
    assert version.version == "1"
    folder = nnpm.load(str(models / "default/1"))
    assert (folder.version, folder.path, folder.labels) == ("", models / "default/1", LABELS)
    monkeypatch.chdir(models)
    assert nnpm.load("default/1").version == ""  # what lies here goes before the registry


def test_without_settings_the_models_of_the_checkout_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nnpm.load("default").version == "2"


@pytest.mark.parametrize(
    ("name", "code"), [("nobody", "unknown_model"), ("./nowhere", "model_unavailable")]
)
def test_a_model_that_is_missing_is_an_error(
    models: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    with pytest.raises(nnpm.Error) as caught:
        nnpm.load(name)
    assert caught.value.code == code
    assert caught.value.detail == str(caught.value)


def test_a_file_and_its_samples_have_one_answer(model: nnpm.Model, tmp_path: Path) -> None:
    samples = speechlike(4.0).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    answers = [
        model.predict(path),
        model.predict(str(path)),
        model.predict(path.read_bytes()),
        model.predict(io.BytesIO(path.read_bytes())),
        model.predict(samples, 16_000),
        model.predict(np.stack([samples, samples]), 16_000),
    ]
    assert len({(one.emotion, tuple(one.scores.items())) for one in answers}) == 1
    assert answers[0].emotion in LABELS
    assert answers[0].segments[0].emotion == answers[0].emotion


def test_integers_are_scaled(model: nnpm.Model) -> None:
    samples = speechlike(2.0)
    whole = model.predict((samples * 32768).astype(np.int16), 16_000)
    assert whole.scores == pytest.approx(model.predict(samples, 16_000).scores, abs=1e-3)


def test_options_are_those_of_predict(model: nnpm.Model) -> None:
    stereo = np.stack([speechlike(2.0), speechlike(2.0, seed=1)])
    answer = model.predict(stereo, 16_000, channels="split", top_k=2, emotions="sad")
    assert [part.channel for part in answer.per_channel] == [0, 1]
    assert (answer.emotion, len(answer.top)) == ("sad", 2)


def test_turns_may_be_given(model: nnpm.Model) -> None:
    turns = [{"start_s": 0.5, "end_s": 1.5, "speaker": "ann"}, {"start_s": 1.5, "end_s": 3}]
    found = model.predict(speechlike(4.0), 16_000, turns=turns).to_frame()
    assert found.index.get_level_values("start").total_seconds().tolist() == [0.5, 1.5]
    assert found.speaker.iloc[0] == "ann"


def test_silence_is_a_row_at_every_level(model: nnpm.Model) -> None:
    answer = model.predict(np.zeros(160_000), 16_000)
    for level in ("segment", "channel", "recording"):
        assert len(answer.to_frame(level)) == 1


@pytest.mark.parametrize(
    ("audio", "rate", "options", "said"),
    [
        (np.zeros(16_000), None, {}, "no sample rate"),
        (np.zeros(16_000), 16_000.5, {}, "whole number"),
        (np.zeros((16_000, 2)), 16_000, {}, "transpose"),
        (np.zeros((1, 2, 3)), 16_000, {}, "shape"),
        (np.zeros((9, 16_000)), 16_000, {}, "at most 8 channels"),
        (np.zeros(10), 16_000, {}, "at least 0.1 s"),
        (np.zeros(0), 16_000, {}, "empty"),
        (np.full(16_000, np.nan), 16_000, {}, "finite"),
        (np.full(16_000, 3e4), 16_000, {}, "full scale"),
        (np.zeros(16_000, complex), 16_000, {}, "complex"),
        (np.array(["a"]), 16_000, {}, "floats in"),
        (None, None, {}, "NoneType"),
        ("nowhere.wav", None, {}, "no such file"),
        (b"no audio at all", None, {}, "Unsupported audio format"),
        (np.zeros(16_000), 16_000, {"windows": 3}, "known are"),
        (np.zeros(16_000), 16_000, {"top_k": 0}, "top_k"),
        (np.zeros(16_000), 16_000, {"emotions": ("bored",)}, "bored"),
    ],
)
def test_what_cannot_be_scored_is_an_error(model, audio, rate, options, said) -> None:
    with pytest.raises(nnpm.Error, match=said) as caught:
        model.predict(audio, rate, **options)
    error = caught.value
    assert 400 <= error.status < 500
    assert error.code
    assert error.title
    assert error.request_id is None


def test_an_answer_is_a_frame_as_audinterface_has_it(model: nnpm.Model, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(speechlike(7.0)))
    answer = model.predict(path, segments="windows")
    found = answer.to_frame()
    assert found.index.names == ["file", "start", "end"]
    assert len(found) == len(answer.segments) > 1
    file, start, end = found.index[1]
    assert (file, start.total_seconds()) == (str(path), answer.segments[1].start_s)
    assert end.total_seconds() == answer.segments[1].end_s
    assert found.emotion.tolist() == [one.emotion for one in answer.segments]
    assert found.index.dtypes.iloc[1].kind == "m"
    whole = answer.to_frame("recording")
    assert whole.index[0][2].total_seconds() == 7.0
    assert whole.iloc[0].sample_rate_hz == 16_000


def test_a_folder_is_a_frame_and_broken_files_are_rows(model: nnpm.Model, archive: Path) -> None:
    found = model.process_folder(archive, level="recording", jobs=2)
    files = found.index.get_level_values("file").tolist()
    assert files == [str(archive / name) for name in ("a.wav", "below/b.flac", "broken.wav")]
    assert found.error.isna().tolist() == [True, True, False]
    assert pandas.isna(found.index[2][2])
    assert found.detail.iloc[2]
    segments = model.process_folder(archive, segments="windows")
    assert len(segments) > 3
    alone = model.predict(archive / "a.wav", segments="windows").to_frame()
    pandas.testing.assert_frame_equal(segments.loc[alone.index], alone)
    assert segments.to_csv().startswith("file,start,end,channel")


def test_a_folder_without_audio_is_an_error(model: nnpm.Model, tmp_path: Path) -> None:
    for folder, said in ((tmp_path, "no audio"), (tmp_path / "none", "not a folder")):
        with pytest.raises(nnpm.Error, match=said):
            model.process_folder(folder)
    with pytest.raises(nnpm.Error, match="jobs is 0"):
        model.process_folder(tmp_path, jobs=0)


@pytest.mark.parametrize(
    ("lacks", "code"),
    [
        ("pandas", "nnpm.load(sys.argv[1]).process_folder('.')"),
        ("autograd", "nnpm.adapt(sys.argv[1], '.', out='out')"),
        ("httpx2", "nnpm.Client()"),
    ],
)
def test_a_missing_extra_is_named(models: Path, tmp_path: Path, lacks: str, code: str) -> None:
    extra = {"pandas": "tables", "autograd": "adapt", "httpx2": "client"}[lacks]
    script = f"""
import sys
sys.modules[{lacks!r}] = None
import nnpm
try:
    {code}
except nnpm.Error as error:
    assert (error.status, error.code) == (501, "extra_missing"), error.code
    assert "{lacks}" in str(error) and "nnpm[{extra}]" in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(models / "default/1")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
