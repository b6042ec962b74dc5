"""Bundles of the first generation: two graphs, and a memory that is searched as a whole."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle, Memory
from nnpm.service.inference.card import Decision
from nnpm.service.inference.errors import BundleError
from nnpm.service.inference.first_generation import FirstModel, MemoryIndex
from nnpm.service.inference.graphs import softmax
from nnpm.service.inference.recognizer import Recognizer
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import (
    CLASSES,
    TEMPERATURE,
    embed,
    encoder_graph,
    first_files,
    first_head_graph,
    first_memory,
    tiny_card,
    write_first_bundle,
    write_signed,
)

LABELS = ("angry", "happy", "neutral", "sad")
NUM_SLOTS, DIMENSION, WIDTH = 60, 12, 6
RNG = np.random.default_rng(0)


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


FEATURES = RNG.normal(3.0, 2.0, (NUM_SLOTS, DIMENSION)).astype(np.float16).astype(np.float32)
EMOTION = RNG.integers(0, len(LABELS), NUM_SLOTS)
PROJECTIONS = unit(RNG.standard_normal((NUM_SLOTS, WIDTH)))
QUERIES = unit(RNG.standard_normal((7, WIDTH)))
EMBEDDINGS = RNG.normal(3.0, 2.0, (7, DIMENSION)).astype(np.float32)


def memory(emotion: np.ndarray = EMOTION, features: np.ndarray = FEATURES) -> Memory:
    return Memory(
        features=features,
        emotion=emotion.astype(np.int64),
        corpus=tuple(f"corpus {i}" for i in range(len(emotion))),
        language=tuple(f"language {i}" for i in range(len(emotion))),
    )


def decision(**changes: Any) -> Decision:
    return tiny_card().decision.model_copy(update=changes)


def index(emotion: np.ndarray = EMOTION, **changes: Any) -> MemoryIndex:
    return MemoryIndex(memory(emotion), PROJECTIONS, decision(**changes), LABELS)


def vote_by_hand(query: np.ndarray, emotion: np.ndarray, slots: int, temperature: float) -> list:
    powers = []
    for label in range(len(LABELS)):
        cosines = sorted(float(query @ slot) for slot in PROJECTIONS[emotion == label])[-slots:]
        powers.append(np.exp(np.mean(cosines) / temperature) if cosines else 0.0)
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("slots", [1, 3, 1_000])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_the_vote_is_that_of_a_loop(slots: int, temperature: float) -> None:
    found = index(vote_slots=slots, vote_temperature=temperature).vote(QUERIES)
    expected = [vote_by_hand(query, EMOTION, slots, temperature) for query in QUERIES]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


def test_the_votes_bias_is_added_to_the_similarities() -> None:
    """A bias of b multiplies the odds of an emotion by exp(b / temperature)."""
    bias = (0.1, 0.0, -0.2, 0.05)
    plain = index(vote_slots=3, vote_temperature=0.2).vote(QUERIES)
    found = index(vote_slots=3, vote_temperature=0.2, vote_bias=bias).vote(QUERIES)
    powers = plain * np.exp(np.array(bias) / 0.2)
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
    some = np.where(EMOTION == 2, 0, EMOTION)  # no slot of emotion 2: no bias brings it back
    assert (index(some, vote_bias=(0.0, 0.0, 900.0, 0.0)).vote(QUERIES)[:, 2] == 0).all()


def test_an_emotion_without_slots_gets_no_vote() -> None:
    emotion = np.where(EMOTION == 1, 3, EMOTION)
    found = index(emotion).vote(QUERIES)
    expected = [vote_by_hand(query, emotion, 5, 0.2) for query in QUERIES]
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_more_clips_of_an_emotion_are_not_more_votes() -> None:
    one_each = MemoryIndex(
        memory(np.arange(4)), np.eye(4, WIDTH, dtype=np.float32), decision(), LABELS
    )
    doubled = MemoryIndex(
        memory(np.array([0, 0, 0, 0, 1, 2, 3])),
        np.eye(4, WIDTH, dtype=np.float32)[[0, 0, 0, 0, 1, 2, 3]],
        decision(),
        LABELS,
    )
    np.testing.assert_allclose(one_each.vote(QUERIES), doubled.vote(QUERIES), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 10, NUM_SLOTS, 100])
def test_the_nearest_are_those_of_a_sort(count: int) -> None:
    for query in QUERIES:
        found = index().nearest(query, count)
        order = sorted(range(NUM_SLOTS), key=lambda slot: -float(query @ PROJECTIONS[slot]))[:count]
        assert [near.corpus for near in found] == [f"corpus {slot}" for slot in order]
        assert [near.language for near in found] == [f"language {slot}" for slot in order]
        assert [near.emotion for near in found] == [LABELS[EMOTION[slot]] for slot in order]
        np.testing.assert_allclose(
            [near.similarity for near in found], (PROJECTIONS @ query)[order], atol=1e-6
        )


def test_a_clip_of_the_memory_is_its_own_nearest() -> None:
    for slot in range(NUM_SLOTS):
        (nearest,) = index().nearest(PROJECTIONS[slot], 1)
        assert nearest.corpus == f"corpus {slot}"
        assert 0.9999 < nearest.similarity <= 1.0


@pytest.mark.parametrize("slots", [1, 4, 1_000])
def test_out_of_domain_is_that_of_a_loop(slots: int) -> None:
    figures = index(domain_slots=slots, domain_midpoint=-1.1, domain_slope=7.0)
    centre, spread = FEATURES.mean(axis=0, dtype=float), FEATURES.std(axis=0, dtype=float)
    far = EMBEDDINGS.copy()
    far[0, 0] += 1e4  # and is clamped
    for embedding, similarity, figure in zip(
        far, figures.domain_similarity(far), figures.out_of_domain(far), strict=True
    ):
        point = np.clip((embedding - centre) / spread, -4, 4)
        distances = []
        for slot in np.clip((FEATURES - centre) / spread, -4, 4):
            distances.append(np.sqrt(np.mean((point - slot) ** 2)))
        mean = np.mean(sorted(distances)[:slots])
        assert similarity == pytest.approx(-mean, abs=1e-4)
        assert figure == pytest.approx(1 / (1 + np.exp(7.0 * (-mean + 1.1))), abs=1e-3)


def test_what_lies_beyond_a_clip_is_not_near_it() -> None:
    """The angle to it is the same."""
    beyond = FEATURES.mean(axis=0) + 3 * (FEATURES - FEATURES.mean(axis=0))
    figures = index(domain_slots=1)
    assert figures.domain_similarity(beyond).max() < figures.domain_similarity(FEATURES).min() - 0.5


def test_what_the_memory_holds_is_nearer_than_its_opposite() -> None:
    figures = index(domain_slots=1, domain_midpoint=-0.6, domain_slope=10.0)
    opposite = 2 * FEATURES.mean(axis=0) - FEATURES
    assert figures.out_of_domain(FEATURES).max() < 0.01
    assert figures.out_of_domain(opposite).min() > figures.out_of_domain(FEATURES).max()


@pytest.mark.parametrize("slope", [1e-3, 1e6, 1e300])
def test_the_figure_stays_in_bounds(slope: float) -> None:
    extreme = np.stack([FEATURES[0], FEATURES[0] * 1e4, np.zeros(DIMENSION), -FEATURES[0]])
    figures = index(domain_slope=slope, domain_midpoint=0.4)
    with np.errstate(over="ignore"):
        found = figures.out_of_domain(extreme.astype(np.float32))
    assert ((found >= 0) & (found <= 1)).all()


def test_a_feature_that_never_varies_says_nothing() -> None:
    """It is stored with the precision of float16; the clip's own has that of float32."""
    value = np.float32(0.123456)
    constant = np.full((NUM_SLOTS, 1), np.float16(value), np.float32)
    with_constant = MemoryIndex(
        memory(features=np.hstack([FEATURES, constant])), PROJECTIONS, decision(), LABELS
    )
    embeddings = np.hstack([EMBEDDINGS, np.full((len(EMBEDDINGS), 1), value)])
    np.testing.assert_allclose(
        with_constant.domain_similarity(embeddings),
        # one feature more among which the same squares are shared
        index().domain_similarity(EMBEDDINGS) * np.sqrt(DIMENSION / (DIMENSION + 1)),
        atol=0.005,
    )


def test_a_memory_of_one_clip_answers() -> None:
    one = MemoryIndex(memory(np.array([2]), FEATURES[:1]), PROJECTIONS[:1], decision(), LABELS)
    assert one.vote(QUERIES).tolist() == [[0, 0, 1, 0]] * len(QUERIES)
    assert len(one.nearest(QUERIES[0], 5)) == 1
    assert np.isfinite(one.out_of_domain(EMBEDDINGS)).all()


def test_many_threads_get_the_same_answers() -> None:
    shared = index()
    expected = shared.vote(QUERIES)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: shared.vote(QUERIES), range(64)):
            np.testing.assert_array_equal(found, expected)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_first_bundle(tmp_path / "bundle")


def probabilities_by_hand(clip: np.ndarray) -> np.ndarray:
    """Classifier and vote of one clip, by loops."""
    features, emotion = first_memory()
    slots = features.astype(float)
    slots /= np.linalg.norm(slots, axis=1, keepdims=True)
    query = embed(clip) / np.linalg.norm(embed(clip))
    nearest = [np.sort(slots[emotion == label] @ query)[-5:].mean() for label in range(4)]
    powers = np.exp(np.array(nearest) / 0.2)
    classifier = softmax((embed(clip) @ CLASSES / TEMPERATURE).astype(np.float32))
    return 0.7 * classifier + 0.3 * powers / powers.sum()


def test_it_answers_by_classifier_and_all_slots(bundle: Bundle) -> None:
    model = Recognizer(bundle).model
    assert isinstance(model, FirstModel)
    clips = [speechlike(seconds).astype(np.float32) for seconds in (0.1, 0.7, 1.5)]
    waveform = np.full((len(clips), max(map(len, clips))), 0.5, np.float32)
    for row, clip in enumerate(clips):
        waveform[row, : len(clip)] = clip
    found = model.run(waveform, np.array([len(clip) for clip in clips]))
    assert found.embedding.shape == (3, model.width) == (3, 8)
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(found.embedding[row], embed(clip), atol=1e-5)
        np.testing.assert_allclose(found.logits[row], embed(clip) @ CLASSES, atol=1e-4)
        np.testing.assert_allclose(found.probabilities[row], probabilities_by_hand(clip), atol=1e-5)
        score = model.score(clip)
        np.testing.assert_array_equal(score.probabilities, found.probabilities[row])
        assert score.out_of_domain == found.out_of_domain[row]
        unit_embedding = embed(clip) / np.linalg.norm(embed(clip))
        np.testing.assert_allclose(score.embedding, unit_embedding, atol=1e-5)


def test_its_neighbours_are_nearest_to_the_projection(bundle: Bundle) -> None:
    model = FirstModel(bundle)
    features, emotion = first_memory()
    slots = unit(features.astype(float))
    query = model.score(speechlike(1.0).astype(np.float32)).embedding
    order = np.argsort(-(slots @ query))[:4]
    found = model.nearest(0.5 * query, 4)  # the mean of several is shorter
    assert [near.emotion for near in found] == [bundle.labels[emotion[slot]] for slot in order]
    np.testing.assert_allclose([near.similarity for near in found], (slots @ query)[order], 1e-5)
    assert model.nearest(query, 0) == ()


def edited(graph: bytes, edit: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(graph)
    edit(model)
    return model.SerializeToString()


def _rename_input(model: onnx.ModelProto) -> None:
    old, model.graph.input[0].name = model.graph.input[0].name, "audio"
    for node in model.graph.node:
        node.input[:] = ["audio" if name == old else name for name in node.input]


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def _add_output_nowhere_made(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def _negate_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "classes":
            tensor.raw_data = (-np.frombuffer(tensor.raw_data, np.float32)).tobytes()


def _not_a_number(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "classes":
            tensor.raw_data = np.full(CLASSES.size, np.nan, np.float32).tobytes()


GRAPHS = {"model.onnx": encoder_graph(with_logits=True), "head.onnx": first_head_graph()}
EDITS = [
    (_rename_input, "it must have"),
    (_drop_output, "do not run on its probe"),
    (_add_output_nowhere_made, "is not a graph that ONNX Runtime can read"),
    (_negate_weights, "fails its golden probe"),
    (_not_a_number, "fails its golden probe"),
]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("edit", "said"), EDITS)
def test_a_foreign_graph_is_refused(
    bundle: Bundle, name: str, edit: Callable[[onnx.ModelProto], None], said: str
) -> None:
    write_signed(bundle.path, name, edited(GRAPHS[name], edit))
    with pytest.raises(BundleError, match=said) as caught:
        FirstModel(bundles.load(bundle.path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_no_graph_is_refused(bundle: Bundle, name: str) -> None:
    write_signed(bundle.path, name, b"no graph")
    with pytest.raises(BundleError, match=rf"{name} is not a graph that ONNX Runtime can read\.$"):
        FirstModel(bundles.load(bundle.path))


PROBES = {
    "other answers": ({"logits": np.zeros((2, 4), np.float32) + [0, 0, 0, 9]}, "golden probe"),
    "no number": ({"logits": np.full((2, 4), np.nan, np.float32)}, "golden probe"),
    "flat clips": ({"waveform": np.zeros(16_000, np.float32)}, "do not run on its probe"),
    "seven emotions": ({"logits": np.zeros((2, 7), np.float32)}, "do not run on its probe"),
}


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_that_is_not_met_is_refused(bundle: Bundle, name: str) -> None:
    changes, said = PROBES[name]
    with np.load(io.BytesIO(first_files()["probe.npz"])) as arrays:
        file = io.BytesIO()
        np.savez(file, **(dict(arrays) | changes))
    write_signed(bundle.path, "probe.npz", file.getvalue())
    with pytest.raises(BundleError, match=said):
        FirstModel(bundles.load(bundle.path))


def test_more_labels_than_logits_are_refused(tmp_path: Path) -> None:
    bundle = write_first_bundle(tmp_path / "bundle", labels=(*tiny_card().labels, "fear"))
    with pytest.raises(BundleError, match=r"logits of shape \(2, 4\); .* names 5 emotions\.$"):
        FirstModel(bundle)


def test_a_memory_of_another_width_is_refused(bundle: Bundle) -> None:
    arrays = load_arrays(first_files()["memory.safetensors"])
    arrays["features"] = np.hstack([arrays["features"]] * 2)
    names = {"corpora": '["one", "two"]', "languages": '["en", "pl"]'}
    write_signed(bundle.path, "memory.safetensors", save_arrays(arrays, metadata=names))
    with pytest.raises(BundleError, match=r"holds 16 features .* graphs have 8\.$"):
        FirstModel(bundles.load(bundle.path))
