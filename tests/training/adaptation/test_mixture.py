import numpy as np
import pytest

from nnpm.training.adaptation.config import MixtureConfig
from nnpm.training.adaptation.methods.method import softmax
from nnpm.training.adaptation.methods.mixture import mixture_labels

CONFIG = MixtureConfig(start_share=0.0)


def drawn(
    counts: tuple[int, ...], shift: float, voices: int = 1, by_voice: float = 0.0, seed: int = 0
) -> dict[str, np.ndarray]:
    """Logits of a memory and of a target whose clips are shifted, as a language and a voice do."""
    rng = np.random.default_rng(seed)
    emotions = len(counts)
    places = 3.0 * np.eye(emotions)
    memory = np.arange(80 * emotions) % emotions
    source = places[memory] + rng.standard_normal((len(memory), emotions))
    truth = np.repeat(np.arange(emotions), counts)
    voice = rng.integers(voices, size=len(truth))
    moved = shift * rng.standard_normal(emotions)
    own = by_voice * rng.standard_normal((voices, emotions))
    target = places[truth] + rng.standard_normal((len(truth), emotions)) + moved + own[voice]
    return {
        "source": source.astype(np.float32),
        "memory": memory,
        "target": target.astype(np.float32),
        "truth": truth,
        "voice": voice,
    }


def labels(data: dict[str, np.ndarray], config: MixtureConfig = CONFIG, **more) -> np.ndarray:
    start = more.pop("start", softmax(data["target"]))
    found = mixture_labels(data["source"], data["memory"], data["target"], start, config, **more)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)
    assert found.dtype == np.float32
    return found


def right(data: dict[str, np.ndarray], found: np.ndarray) -> float:
    return float((found.argmax(1) == data["truth"]).mean())


@pytest.mark.parametrize("counts", [(80, 80, 80, 80), (200, 60, 30, 30), (120, 0, 120, 120)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_shift_of_the_language_is_undone_whatever_the_shares(counts, seed: int) -> None:
    data = drawn(counts, shift=1.5, seed=seed)
    found = labels(data)
    assert right(data, found) > right(data, softmax(data["target"])) + 0.02
    assert right(data, found) > 0.85
    np.testing.assert_allclose(found.mean(0), np.array(counts) / sum(counts), atol=0.08)


def test_nothing_changes_where_nothing_moved() -> None:
    data = drawn((100, 100, 100), shift=0.0)
    assert right(data, labels(data)) >= right(data, softmax(data["target"])) - 0.01


def test_known_voices_help_where_voices_differ() -> None:
    data = drawn((100, 100, 100, 100), shift=0.5, voices=8, by_voice=1.5)
    assert right(data, labels(data, voice=data["voice"])) > right(data, labels(data)) + 0.05


def test_a_voice_with_one_emotion_does_not_lose_it() -> None:
    data = drawn((60, 60, 60), shift=0.0)
    found = labels(data, voice=data["truth"])
    assert right(data, found) >= right(data, labels(data)) - 0.04


def test_emotions_without_share_at_the_start_or_slots_stay_closed() -> None:
    data = drawn((50, 50, 50, 50), shift=0.5)
    start = softmax(data["target"])
    start[:, 2] = 0.0
    assert labels(data, start=start / start.sum(1, keepdims=True))[:, 2].max() == 0.0
    kept = data["memory"] != 1
    data.update(source=data["source"][kept], memory=data["memory"][kept])
    assert labels(data)[:, 1].max() == 0.0


def test_given_emotions_are_kept_and_help() -> None:
    data = drawn((60, 60, 60), shift=3.0, seed=3)
    places = np.arange(0, 180, 6)
    found = labels(data, given=(places, data["truth"][places]))
    np.testing.assert_array_equal(found[places], np.eye(3)[data["truth"][places]])
    rest = np.setdiff1d(np.arange(180), places)
    without = (labels(data).argmax(1) == data["truth"])[rest].mean()
    assert (found.argmax(1) == data["truth"])[rest].mean() >= without


@pytest.mark.parametrize("clips", [1, 2, 7])
def test_few_clips_and_equal_ones_are_finite(clips: int) -> None:
    data = drawn((5, 5, 5), shift=0.5)
    data["target"] = np.repeat(data["target"][:1], clips, axis=0)
    assert np.isfinite(labels(data, voice=np.zeros(clips, np.int64))).all()
    data.update(source=data["source"] * 0, memory=data["memory"])
    assert np.isfinite(labels(data)).all()


def test_one_emotion_in_the_memory_is_the_answer() -> None:
    data = drawn((5, 5), shift=0.0)
    data["memory"] = np.zeros_like(data["memory"])
    assert (labels(data).argmax(1) == 0).all()


def test_a_share_of_the_start_stays_but_for_given_clips() -> None:
    data = drawn((30, 30, 30), shift=2.0)
    start = softmax(data["target"])
    given = (np.array([4]), np.array([2]))
    found = labels(data, MixtureConfig(start_share=0.3), given=given)
    expected = 0.7 * labels(data, given=given) + 0.3 * start
    expected[4] = [0, 0, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(labels(data, MixtureConfig(start_share=1.0)), start, atol=1e-5)
