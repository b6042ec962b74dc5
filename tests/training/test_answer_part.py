"""What is attached to an encoder: in ONNX Runtime, in numpy and by loops, to anybody's encoder."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from nnpm.service.inference.bundle import Memory
from nnpm.service.inference.card import Decision
from nnpm.service.inference.graphs import Outputs, open_session, run_rows
from nnpm.service.inference.head import Head
from nnpm.training.bundle.answer import attach_answer, encoder_part
from nnpm.training.bundle.parts import as_stored, memory_file
from nnpm.training.bundle.prototypes import MAX_BYTES, Prototypes, answer
from nnpm.training.errors import TrainingError
from tests.support.tiny_bundle import tiny_card

LABELS = ("angry", "fear", "happy", "neutral", "sad")
WIDTH, PROJECTED = 12, 6
RNG = np.random.default_rng(0)
METADATA = {"licence": "MIT", "name": "default", "version": "2"}


def random_head(width: int = WIDTH, projected: int = PROJECTED, emotions: int = 5) -> Head:
    classes = RNG.standard_normal((emotions, projected)).astype(np.float32)
    return Head(
        mean=RNG.standard_normal(width).astype(np.float32),
        deviation=RNG.uniform(0.5, 2, width).astype(np.float32),
        weight=RNG.standard_normal((projected, width)).astype(np.float32),
        bias=RNG.standard_normal(projected).astype(np.float32),
        classes=classes / np.linalg.norm(classes, axis=1, keepdims=True),
        scale=np.float32(6.0),
    )


def random_memory(slots: int = 60, width: int = WIDTH, speakers: int = 7) -> Memory:
    """Uneven, and without the second emotion."""
    corpus = RNG.choice(["one", "two", "three"], slots, p=[0.7, 0.2, 0.1])
    return Memory(
        features=(2 * RNG.standard_normal((slots, width))).astype(np.float32),
        emotion=RNG.choice([0, 2, 3, 4], slots, p=[0.5, 0.3, 0.15, 0.05]),
        corpus=tuple(corpus.tolist()),
        language=("en",) * slots,
        speaker=tuple(f"{n}" for n in RNG.integers(0, speakers, slots)),
    )


HEAD, MEMORY = random_head(), random_memory()
EMBEDDINGS = (HEAD.mean + 2 * HEAD.deviation * RNG.standard_normal((9, WIDTH))).astype(np.float32)
EMBEDDINGS[0] += 100  # is clamped


def decision(**changes: Any) -> Decision:
    numbers = {"domain_midpoint": -1.2, "domain_slope": 6.0, "domain_slots": 3, "vote_slots": 2}
    return tiny_card().decision.model_copy(update=numbers | changes)


ENCODER = """
<ir_version: 8, opset_import: ["" : {opset}]>
encoder (float[batch, samples] waveform, int64[batch] lengths) => (float[batch, 12] embedding)
{{
    taken = Gather <axis = 1> (waveform, first)
    embedding = Identity (taken)
}}
"""


def encoder(text: str = ENCODER, opset: int = 17) -> onnx.ModelProto:
    """Its embedding are the first twelve samples."""
    model = parser.parse_model(text.format(opset=opset))
    first = numpy_helper.from_array(np.arange(WIDTH, dtype=np.int64), "first")
    model.graph.initializer.append(first)
    return model


def attached(encoder_model: onnx.ModelProto | None = None, **changes: Any) -> onnx.ModelProto:
    made = encoder() if encoder_model is None else encoder_model
    return attach_answer(made, HEAD, MEMORY, decision(**changes), LABELS, METADATA)


def run(model: onnx.ModelProto, embeddings: np.ndarray = EMBEDDINGS) -> Outputs:
    waveform = np.zeros((len(embeddings), 600), np.float32)
    waveform[:, :WIDTH] = embeddings
    session = open_session(model.SerializeToString())
    return run_rows(session, waveform, np.full(len(embeddings), 600))


def by_loops(embedding: np.ndarray, how: Decision) -> tuple[np.ndarray, float]:
    """Probabilities and distance of one clip, as docs/research/bundle.md describes them."""
    standard = (embedding.astype(float) - HEAD.mean) / HEAD.deviation
    slots = MEMORY.features @ HEAD.weight.T + HEAD.bias
    slots /= np.linalg.norm(slots, axis=1, keepdims=True)
    projected = HEAD.weight @ standard + HEAD.bias
    projected /= np.linalg.norm(projected)
    logits = 6.0 * HEAD.classes @ projected / how.temperature + (how.logit_bias or 0)
    classifier = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    votes = np.zeros(len(LABELS))
    for emotion in set(MEMORY.emotion.tolist()):
        cosines = []
        for who in set(zip(MEMORY.corpus, MEMORY.speaker, strict=True)):
            own = [
                slot
                for slot, other in zip(
                    slots, zip(MEMORY.corpus, MEMORY.speaker, MEMORY.emotion, strict=True),
                    strict=True,
                )
                if other == (*who, emotion)
            ]  # fmt: skip
            if own:
                centroid = np.mean(own, axis=0)
                cosines.append(projected @ centroid / np.linalg.norm(centroid))
        similarity = np.mean(sorted(cosines)[-how.vote_slots :])
        bias = how.vote_bias[emotion] if how.vote_bias else 0.0
        votes[emotion] = np.exp((similarity + bias) / how.vote_temperature)
    distances = []
    clamped = np.clip(standard, -4, 4)
    for who in set(zip(MEMORY.corpus, MEMORY.speaker, strict=True)):
        own = [
            np.clip(feature, -4, 4)
            for feature, other in zip(
                MEMORY.features, zip(MEMORY.corpus, MEMORY.speaker, strict=True), strict=True
            )
            if other == who
        ]
        distances.append(np.sqrt(np.mean((clamped - np.mean(own, axis=0)) ** 2)))
    distance = np.mean(sorted(distances)[: how.domain_slots])
    figure = 1 / (1 + np.exp(how.domain_slope * (-distance - how.domain_midpoint)))
    weight = how.vote_weight
    return (1 - weight) * classifier + weight * votes / votes.sum(), figure


CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "biases": {"logit_bias": (1.0, 0.0, -2.0, 0.5, 0.0), "vote_bias": (0.1, 9.0, 0.0, -0.2, 0.3)},
    "the vote alone": {"vote_weight": 1.0, "vote_temperature": 0.05},
    "no vote": {"vote_weight": 0.0},
    "one neighbour": {"vote_slots": 1, "domain_slots": 1},
    "more neighbours than there are": {"vote_slots": 1_000, "domain_slots": 1_000},
}


@pytest.mark.parametrize("case", CASES)
def test_graph_numpy_and_loops_agree(case: str) -> None:
    how = decision(**CASES[case])
    found = run(attached(**CASES[case]))
    same = answer(EMBEDDINGS, HEAD, Prototypes.of(HEAD, MEMORY), how)
    for name, values in found._asdict().items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, getattr(same, name), atol=2e-5, err_msg=name)
    for row, embedding in enumerate(EMBEDDINGS):
        probabilities, figure = by_loops(embedding, how)
        np.testing.assert_allclose(found.probabilities[row], probabilities, atol=1e-5)
        assert found.out_of_domain[row] == pytest.approx(figure, abs=1e-4)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.embedding, EMBEDDINGS)


def test_an_emotion_that_the_memory_lacks_gets_no_vote() -> None:
    assert (run(attached(vote_weight=1.0)).probabilities[:, 1] == 0).all()


@pytest.mark.parametrize("slope", [1e-3, 1e30, 1e300])
def test_the_figure_stays_in_bounds(slope: float) -> None:
    extreme = np.stack([EMBEDDINGS[1], EMBEDDINGS[1] * 1e6, -EMBEDDINGS[1], HEAD.mean])
    found = run(attached(domain_slope=slope), extreme).out_of_domain
    assert ((found >= 0) & (found <= 1)).all()


def test_the_order_of_the_slots_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(len(MEMORY.emotion))
    shuffled = Memory(
        MEMORY.features[order],
        MEMORY.emotion[order],
        *(
            tuple(names[slot] for slot in order)
            for names in (MEMORY.corpus, MEMORY.language, MEMORY.speaker)
        ),
    )
    one, other = Prototypes.of(HEAD, MEMORY), Prototypes.of(HEAD, shuffled)
    np.testing.assert_allclose(one.voting, other.voting, atol=1e-6)
    np.testing.assert_allclose(one.domain, other.domain, atol=1e-6)
    assert one.emotion.tolist() == other.emotion.tolist()
    again = attached().SerializeToString(deterministic=True)
    assert again == attached().SerializeToString(deterministic=True)


def test_a_large_memory_is_condensed() -> None:
    """150 speakers of two corpora, as many clips as a bundle may have."""
    slots, wide = 4_000, 1_024
    corpus = np.where(np.arange(slots) % 4 == 0, "small", "large")
    memory = Memory(
        RNG.standard_normal((slots, wide)).astype(np.float32),
        np.arange(slots) % 7,
        tuple(corpus.tolist()),
        ("en",) * slots,
        tuple(
            f"{n % (10 if c == 'small' else 140)}"
            for n, c in zip(RNG.integers(0, 840, slots), corpus, strict=True)
        ),
    )
    head = random_head(wide, 256, 7)
    found = Prototypes.of(head, memory)
    assert np.bincount(found.emotion).tolist() == [64] * 7
    assert len(found.domain) == 128
    assert found.voting.nbytes + found.domain.nbytes <= MAX_BYTES
    np.testing.assert_allclose(np.linalg.norm(found.voting, axis=1), 1, atol=1e-5)
    clamped = np.clip(memory.features, -4, 4)
    for name in map(str, range(10)):  # every speaker of the small corpus has one of their own
        whose = [one == ("small", name) for one in zip(memory.corpus, memory.speaker, strict=True)]
        distances = np.abs(found.domain - clamped[whose].mean(axis=0)).max(axis=1)
        assert distances.min() < 1e-5
    stored = len(memory_file(memory))
    assert stored < 1.02 * slots * wide
    difference = np.abs(as_stored(memory).features - np.clip(memory.features, -3.97, 3.97))
    assert difference.max() <= 1 / 64 + 1e-6


@pytest.mark.parametrize(("emotions", "projected", "wide"), [(8, 256, 1_024), (8, 512, 4_096)])
def test_prototypes_never_exceed_a_megabyte(emotions: int, projected: int, wide: int) -> None:
    memory = replace(random_memory(2_000, wide, 200), emotion=np.arange(2_000) % emotions)
    found = Prototypes.of(random_head(wide, projected, emotions), memory)
    rows = np.bincount(found.emotion).max() * emotions * projected * 4
    assert rows + found.domain.nbytes <= MAX_BYTES
    assert len(found.domain) > 20


def test_what_is_told_of_the_graph() -> None:
    model = attached()
    told = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(told.pop("labels")) == list(LABELS)
    assert told == {"sample_rate_hz": "16000", **METADATA}
    session = open_session(model.SerializeToString())
    assert [one.name for one in session.get_inputs()] == ["waveform", "lengths"]
    shapes = {one.name: one.shape for one in session.get_outputs()}
    assert shapes == {
        "probabilities": ["batch", 5], "out_of_domain": ["batch"],
        "embedding": ["batch", 12], "logits": ["batch", 5],
    }  # fmt: skip


def test_an_answer_is_replaced_and_the_encoder_kept() -> None:
    first = attached()
    assert encoder_part(first).SerializeToString() == encoder_part(encoder()).SerializeToString()
    again = attached(first, temperature=2.0)
    assert again.SerializeToString() == attached(temperature=2.0).SerializeToString()
    assert len(again.SerializeToString()) < len(first.SerializeToString()) + 100


STRANGERS = {
    "our names within": """
        <ir_version: 8, opset_import: ["" : 17]>
        theirs (float[batch, samples] waveform, int64[batch] lengths)
            => (float[batch, 12] embedding, float[batch, 12] probabilities, float[batch, 12] more)
        {
            logits = Gather <axis = 1> (waveform, first)
            embedding = Identity (logits)
            probabilities = Softmax (embedding)
            more = Relu (logits)
        }""",
    "a branch that reads from outside": """
        <ir_version: 8, opset_import: ["" : 13]>
        theirs (float[batch, samples] waveform, int64[batch] lengths) => (float[batch, m] embedding)
        {
            taken = Gather <axis = 1> (waveform, first)
            outside = Identity (taken)
            size = Size (lengths)
            some = Cast <to = 9> (size)
            embedding = If (some) <
                then_branch = yes () => (float[batch, m] same) { same = Identity (outside) },
                else_branch = no () => (float[batch, m] other) { other = Neg (outside) }
            >
        }""",
    "an embedding within, of which nothing is told": """
        <ir_version: 8, opset_import: ["" : 17]>
        theirs (float[batch, samples] waveform, int64[batch] lengths) => (float[batch, 12] classes)
        {
            embedding = Gather <axis = 1> (waveform, first)
            classes = Softmax (embedding)
        }""",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_the_encoder_may_be_a_strangers(name: str) -> None:
    theirs = encoder(STRANGERS[name].replace("{", "{{").replace("}", "}}"))
    before = theirs.SerializeToString()
    found, expected = run(attached(theirs)), run(attached())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert theirs.SerializeToString() == before


@pytest.mark.parametrize("opset", [13, 18, 22])
def test_any_opset_from_13_will_do(opset: int) -> None:
    np.testing.assert_allclose(run(attached(encoder(opset=opset)))[0], run(attached())[0])


def _no_embedding(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = model.graph.output[0].name = "pooled"


def _another_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch"]))


def _another_width(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 13


def _half_precision(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


BAD: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (_no_embedding, "computes no tensor 'embedding'"),
    (_another_input, "has the inputs lengths, mask, waveform; it must have lengths, waveform"),
    (_another_width, "embedding has 13 features; the head has 12"),
    (_half_precision, "embedding is FLOAT16; it must be FLOAT"),
    (_old, "is of opset 12; at least 13 is needed"),
]


@pytest.mark.parametrize(("edit", "said"), BAD)
def test_what_is_no_encoder_is_refused(edit: Callable[[onnx.ModelProto], None], said: str) -> None:
    theirs = encoder()
    edit(theirs)
    with pytest.raises(TrainingError, match=said):
        attached(theirs)


def test_a_head_of_other_emotions_is_refused() -> None:
    with pytest.raises(TrainingError, match="5 classes for 2 labels"):
        attach_answer(encoder(), HEAD, MEMORY, decision(), LABELS[:2], METADATA)
