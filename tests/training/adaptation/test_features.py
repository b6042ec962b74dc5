"""What of a folder is learnt from, and what is left out and named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.speech import trim_edges
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.inference.turns import find_turns
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.features import (
    Encoder,
    TargetFeatures,
    extract_features,
    with_labels,
)
from nnpm.training.bundle.parts import voice
from nnpm.training.errors import TrainingError
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import WIDTH


def extract(
    folder: Path, base, *, threads: int = 2, views: int = 1, channels="mix", **changes
) -> TargetFeatures:
    config = AdaptConfig(**({"min_clips": 1} | changes))
    encoder = Encoder(base.path / "model.onnx", views, seed=0)
    return extract_features(
        folder, encoder, base.card.window_s, config, threads=threads, channels=channels
    )


def write(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # quantised here: libsndfile rounds in another way for each container
    soundfile.write(path, np.round(samples * 32_767).astype(np.int16), rate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good clips, and one or more of each kind that is left out."""
    clip = 0.3 * voice(150.0, 0.8, seed=0)
    write(tmp_path / "a.wav", clip)
    write(tmp_path / "deep" / "er" / "b.flac", 0.3 * voice(210.0, 0.6, seed=1))
    write(tmp_path / "c.ogg", 0.3 * voice(180.0, 0.6, seed=2))
    write(tmp_path / "d copy.flac", clip)  # the same samples in another container
    write(tmp_path / "silence.wav", np.zeros(16_000))
    write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000))
    write(tmp_path / "short.wav", clip[4_000:8_000])
    write(tmp_path / "shorter.wav", clip[4_000:5_000])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "broken.mp3").write_bytes(b"no audio at all")
    whole = (tmp_path / "deep" / "er" / "b.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / ".hidden.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    (tmp_path / "metadata.csv").write_text("nonsense that is not read")
    return tmp_path


def test_every_file_is_used_or_skipped_by_name(folder: Path, base) -> None:
    found = extract(folder, base, views=3)
    assert found.names == ["a.wav", "c.ogg", "deep/er/b.flac"]
    assert found.clip.tolist() == [0, 1, 2]
    assert found.skipped == {
        "undecodable": ["broken.mp3", "cut.flac"],
        "too_short": ["empty.wav", "short.wav", "shorter.wav"],
        "no_speech": ["noise.wav", "silence.wav"],
        "duplicate": ["d copy.flac"],
    }
    assert found.target().pooled.shape == (3, WIDTH)
    assert found.target().views.shape == (3, 3, WIDTH)


def test_clips_are_heard_as_prediction_hears_them(folder: Path, base) -> None:
    found = extract(folder, base)
    recognizer = Recognizer(base)
    for row, name in zip(found.target().pooled, ("a.wav", "c.ogg", "deep/er/b.flac"), strict=True):
        samples = trim_edges(decode(folder / name).waveforms[0]).samples
        expected = recognizer.score(samples).embedding
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_number_of_threads_changes_nothing(folder: Path, base) -> None:
    one, many = extract(folder, base, threads=1), extract(folder, base, threads=5)
    assert np.array_equal(one.target().pooled, many.target().pooled)
    assert np.array_equal(one.target().views, many.target().views)
    assert one.skipped == many.skipped


def test_a_long_recording_gives_the_turns_of_prediction(tmp_path: Path, base) -> None:
    speech = speechlike(3.0)
    pause = np.zeros(2 * 16_000)
    write(tmp_path / "long.wav", np.concatenate([speech, pause] * 4))
    recording = decode(tmp_path / "long.wav")
    (turns,) = find_turns(recording.waveforms, 48_000)  # the bundle's 3 s
    assert len(turns) >= 4
    found = extract(tmp_path, base)
    assert found.names == ["long.wav"]
    assert found.clip.tolist() == [0] * len(turns)
    recognizer = Recognizer(base)
    rows = found.target().pooled
    for row, turn in zip(rows, turns, strict=True):
        expected = recognizer.score(turn.samples(recording.waveforms[0])).embedding
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-4)
    few = extract(tmp_path, base, turns_per_clip=2).target().pooled
    assert np.array_equal(few, rows[[0, -1]])
    with pytest.raises(TrainingError, match=r"usable \(\d+ turns, but a recording counts once"):
        extract(tmp_path, base, min_clips=2)


def test_many_files_keep_their_order(tmp_path: Path, base) -> None:
    """More than wait at once."""
    for number in range(40):
        write(tmp_path / f"{number:02}.wav", 0.3 * voice(90.0 + 4 * number, 0.4, seed=number))
    whole = extract(tmp_path, base).target().pooled
    for number in (0, 17, 39):
        alone = tmp_path / "alone" / str(number)
        write(alone / "x.wav", 0.3 * voice(90.0 + 4 * number, 0.4, seed=number))
        np.testing.assert_array_equal(extract(alone, base).target().pooled[0], whole[number])


def test_too_few_clips_are_refused_with_the_counts(folder: Path, base) -> None:
    with pytest.raises(TrainingError) as caught:
        extract(folder, base, min_clips=20)
    assert "3 of the 11 audio files" in str(caught.value)
    assert "at least 20 are required" in str(caught.value)
    assert "1 duplicate, 2 no_speech, 3 too_short, 2 undecodable" in str(caught.value)


def test_places_without_audio_are_refused(tmp_path: Path, base) -> None:
    with pytest.raises(TrainingError, match="there is no folder"):
        extract(tmp_path / "nowhere", base)
    (tmp_path / "file.wav").write_bytes(b"")
    with pytest.raises(TrainingError, match="there is no folder"):
        extract(tmp_path / "file.wav", base)
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        TrainingError, match=r"holds no audio; put files into it that end in .*\.aif"
    ):
        extract(tmp_path / "folder", base)


def test_progress_counts_files(folder: Path, base) -> None:
    reported: list[tuple[int, int]] = []
    encoder = Encoder(base.path / "model.onnx", 0, seed=0)
    extract_features(
        folder, encoder, 3.0, AdaptConfig(min_clips=1), threads=1,
        on_file=lambda done, total: reported.append((done, total)),
    )  # fmt: skip
    assert reported == [(number, 11) for number in range(1, 12)]


def test_views_differ_from_the_clip_and_are_drawn_by_clip_and_seed_alone(base) -> None:
    one, other = voice(200.0, 0.7, seed=1), voice(200.0, 0.7, seed=2)
    views = Encoder(base.path / "model.onnx", num_views=3, seed=0)
    first = views(one)
    assert first.shape == (4, WIDTH)
    assert len({tuple(row.tolist()) for row in first}) == 4
    views(other)
    assert np.array_equal(first, views(one))
    again = Encoder(base.path / "model.onnx", num_views=3, seed=1)(one)
    assert np.array_equal(again[0], first[0])
    assert not np.allclose(again[1:], first[1:], atol=1e-3)


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """A stereo call: the left speaker at first, then the right one, twice."""
    left, right = (speechlike(2.0, pitch_hz=pitch) for pitch in (120.0, 200.0))
    quiet = np.zeros(48_000)
    channels = [
        np.concatenate([left, quiet, left, quiet]),
        np.concatenate([quiet[:40_000], right, quiet, right, quiet[:8_000]]),
    ]
    write(tmp_path / "call.wav", np.stack(channels, axis=1))
    write(tmp_path / "mono.wav", speechlike(1.0, seed=3))
    return tmp_path


def test_channels_are_mixed_split_or_chosen(call: Path, base) -> None:
    found = {
        channels: extract(call, base, channels=channels) for channels in ("mix", "split", 0, 1)
    }
    turns = {c: sum(one.clip == one.names.index("call.wav")) for c, one in found.items()}
    assert turns["split"] == turns[0] + turns[1] >= 4
    assert found[0].names == ["call.wav", "mono.wav"]
    assert found[1].names == ["call.wav"]
    assert found[1].skipped == {"lacks_the_channel": ["mono.wav"]}
    split = found["split"].target().pooled
    for channel in (0, 1):
        for row in found[channel].target().pooled[: turns[channel]]:
            assert np.abs(split - row).max(1).min() < 1e-6
    few = extract(call, base, channels="split", turns_per_clip=2)
    assert (few.clip == 0).sum() == 2


def test_labels_belong_to_recordings_and_so_to_all_of_their_turns(call: Path, base) -> None:
    found = extract(call, base, channels="split")
    target = with_labels(found.target(), found, {"call.wav": 3, "left out.wav": 1})
    assert target.labelled.tolist() == np.flatnonzero(found.clip == 0).tolist()
    assert set(target.emotion.tolist()) == {3}
