"""What every method must do, whatever it does."""

from dataclasses import fields, replace

import autograd.numpy as anp
import numpy as np
import pytest
import torch

from nnpm.service.inference.head import Head
from nnpm.training.adaptation import train
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.head import Source, Target
from nnpm.training.adaptation.methods import METHODS
from nnpm.training.adaptation.methods.method import Batch, Method, softmax
from nnpm.training.adaptation.train import Adam, adapt_head
from nnpm.training.errors import TrainingError

CONFIG = AdaptConfig(
    steps=12, ramp_steps=3, refresh_steps=5, source_batch=16, target_batch=8, few_clips=0
)


def adapt(problem, method: str, seed: int = 0, **changes: object) -> Head:
    target = changes.pop("target", problem.target)
    config = CONFIG.model_copy(update=changes)
    return adapt_head(problem.head, problem.source, target, method, config, seed)


def moved(first: Head, second: Head) -> set[str]:
    names = [field.name for field in fields(Head)]
    return {n for n in names if not np.array_equal(getattr(first, n), getattr(second, n))}


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name: str, problem) -> None:
    first, kind = adapt(problem, name), METHODS[name]
    for field in fields(Head):
        value = np.asarray(getattr(first, field.name))
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
    assert moved(first, adapt(problem, name)) == set()
    trained = {"weight", "bias", "classes"} if kind.trains else set()
    statistics = {"mean", "deviation"} if kind.target_statistics else set()
    assert moved(first, problem.head) == trained | statistics
    assert moved(first, adapt(problem, name, seed=1)) == trained
    np.testing.assert_allclose(np.linalg.norm(first.classes, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_loss_is_a_finite_scalar_whose_gradient_is_float32(name: str, problem) -> None:
    method = problem.method(METHODS[name])
    method.refresh(problem.head)
    loss, slope = problem.slope(method)
    assert np.shape(loss) == ()
    assert np.isfinite(loss)
    assert {value.dtype for value in slope.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(value).all() for value in slope.values())
    assert bool(np.abs(slope["weight"]).max() > 0) is METHODS[name].trains


@pytest.mark.parametrize("name", METHODS)
def test_the_whole_step_stays_in_float32(name: str, problem, monkeypatch) -> None:
    """One float64 array would make every product twice as slow."""
    seen = []
    value_and_grad = train.value_and_grad

    def watched(objective):
        def run(weights):
            loss, slope = value_and_grad(objective)(weights)
            seen.extend([loss.dtype, *(value.dtype for value in slope.values())])
            return loss, slope

        return run

    monkeypatch.setattr(train, "value_and_grad", watched)
    adapt(problem, name)
    assert set(seen) <= {np.dtype(np.float32)}
    assert bool(seen) is METHODS[name].trains


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_few_clips_without_views(name: str, problem) -> None:
    few = Target(problem.target.pooled[:3], problem.target.views[:0, :3])
    assert np.isfinite(adapt(problem, name, target=few).weight).all()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_memory_without_some_emotion(name: str, problem) -> None:
    kept = problem.source.emotion != 2
    problem.source = Source(*(getattr(problem.source, f.name)[kept] for f in fields(Source)))
    assert np.isfinite(adapt(problem, name).weight).all()


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].trains])
def test_every_method_learns_from_given_labels(name: str, problem) -> None:
    labels = np.array([3, 2, 1, 0, 3, 2])  # against what the head says
    target = replace(problem.target, labelled=np.arange(6), emotion=labels)
    changes = {"steps": 150, "learning_rate": 0.01, "replay_weight": 0.1}

    def cost(head: Head) -> float:
        logits = head.classify(head.project(head.standardise(target.pooled[:6])))
        return float(-np.log(softmax(logits)[np.arange(6), labels]).mean())

    with_labels = adapt(problem, name, target=target, label_weight=5.0, **changes)
    assert cost(with_labels) < 0.6 * cost(adapt(problem, name, **changes))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_target_of_two_known_emotions(name: str, problem) -> None:
    target = replace(problem.target, occurs=(0, 3))
    assert np.isfinite(adapt(problem, name, target=target).weight).all()


def test_an_unknown_method_is_refused_by_name(problem) -> None:
    with pytest.raises(TrainingError, match="no method magic; choose among source_only, adabn"):
        adapt(problem, "magic")


def test_with_few_clips_a_method_takes_no_steps_unless_some_have_labels(problem) -> None:
    changes = {"few_clips": 21}
    found = adapt(problem, "nnpm", **changes)
    assert moved(found, adapt(problem, "adabn")) == set()
    known = replace(problem.target, labelled=np.arange(2), emotion=np.arange(2))
    assert "weight" in moved(adapt(problem, "nnpm", target=known, **changes), found)


class Recorder(Method):
    """A method that only looks."""

    name = "recorder"
    seen: list[tuple[Batch, float]]
    refreshed: list[Head]

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        type(self).seen, type(self).refreshed = [], []

    def refresh(self, head: Head) -> None:
        self.refreshed.append(head)

    def loss(self, batch: Batch, progress: float, weights):
        self.seen.append((batch, progress))
        return 0.0 * anp.sum(batch.target_logits)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(METHODS, "recorder", Recorder)
    return Recorder


def test_batches_are_balanced_and_of_one_view(problem, recorder) -> None:
    uneven = np.array([0] * 20 + [1] * 5 + [3] * 5)  # emotion 2 has no slot
    problem.source = replace(problem.source, emotion=uneven)
    adapt(problem, "recorder", steps=30, learning_rate=1e-12)
    head = adapt(problem, "adabn")
    versions = [head.project(head.standardise(v)) for v in
                (problem.target.pooled, *problem.target.views)]  # fmt: skip
    views = set()
    for batch, _ in recorder.seen:
        assert np.bincount(batch.source_emotion, minlength=4).tolist() == [5, 5, 0, 5]
        assert np.array_equal(uneven[batch.source_index], batch.source_emotion)
        assert len(np.unique(batch.target_index)) == 8
        found = batch.target_projection._value
        distance = [np.abs(v[batch.target_index] - found).max() for v in versions]
        assert min(distance) < 1e-4
        views.add(int(np.argmin(distance)))
    assert views == {0, 1, 2}


def test_emotions_that_do_not_occur_get_no_probability(problem, recorder) -> None:
    adapt(problem, "recorder", target=replace(problem.target, occurs=(1, 2)))
    for batch, _ in recorder.seen:
        shares = softmax(batch.target_logits._value)
        assert (shares[:, [0, 3]] == 0).all()


def test_a_small_target_is_taken_whole(problem, recorder) -> None:
    adapt(problem, "recorder", target_batch=500)
    for batch, _ in recorder.seen:
        assert sorted(batch.target_index.tolist()) == list(range(20))


def test_refreshes_progress_and_steps_of_two_heads(problem, recorder) -> None:
    reported = []
    adapt_head(
        problem.head, problem.source, problem.target, "recorder",
        CONFIG.model_copy(update={"heads": 2}), 0,
        lambda done, total: reported.append((done, total)),
    )  # fmt: skip
    assert len(recorder.refreshed) == 3  # of the second head, before steps 0, 5 and 10
    assert [progress for _, progress in recorder.seen] == pytest.approx(np.arange(12) / 12)
    assert reported == [(step, 24) for step in range(1, 25)]


def test_the_result_is_the_mean_of_the_heads_and_of_the_last_steps(problem, monkeypatch) -> None:
    ends = []

    class Steady(Recorder):
        name = "steady"

        def loss(self, batch: Batch, progress: float, weights):
            ends.append(weights["bias"]._value.copy())
            return -1.0 * anp.sum(batch.target_logits[:, 0])

    monkeypatch.setitem(METHODS, "steady", Steady)
    found = adapt(problem, "steady", heads=2, averaged_share=0.25, learning_rate=0.01)
    assert len(ends) == 24
    # weights after steps 10, 11 and 12 count; those after 12 are seen by no loss
    for first in (0, 12):
        path = ends[first : first + 12]
        assert np.abs(path[-1] - path[0]).max() > 0.05
    middle = np.mean([ends[11], ends[23]], axis=0)
    np.testing.assert_allclose(found.bias, middle, atol=0.005)


def test_replay_pulls_a_head_that_was_moved_back_to_the_old_answers(problem, monkeypatch) -> None:
    answers = softmax(problem.head.classify(problem.head.project(problem.source.features)))
    losses = []

    class Pusher(Recorder):
        name = "pusher"

        def loss(self, batch: Batch, progress: float, weights):
            now = softmax(batch.source_logits._value)
            old = answers[batch.source_index]
            losses.append(float((old * np.log(old / now)).sum(1).mean()))
            return -5.0 * anp.mean(batch.target_logits[:, 0])

    monkeypatch.setitem(METHODS, "pusher", Pusher)
    ends = {}
    for weight in (0.0, 10.0):
        adapt(problem, "pusher", replay_weight=weight, learning_rate=0.02, steps=40)
        ends[weight] = np.mean(losses[-10:])
    assert losses[0] == pytest.approx(0.0, abs=1e-5)
    assert ends[10.0] < 0.3 * ends[0.0]


def test_losses_without_bounds_are_told(problem, monkeypatch) -> None:
    class Explosion(Recorder):
        name = "explosion"

        def loss(self, batch: Batch, progress: float, weights):
            return anp.sum(batch.target_logits) * np.float32(np.nan)

    monkeypatch.setitem(METHODS, "explosion", Explosion)
    with pytest.raises(TrainingError, match="explosion diverged: its weights are not finite"):
        adapt(problem, "explosion", steps=2, ramp_steps=0)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_torchs(decay: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 2)).astype(np.float32)
    tensor = torch.from_numpy(start.copy()).requires_grad_()
    theirs = torch.optim.AdamW([tensor], lr=0.01, weight_decay=decay)
    ours, weights = Adam(0.01, decay), {"w": start}
    for _ in range(10):
        slope = rng.standard_normal((3, 2)).astype(np.float32)
        tensor.grad = torch.from_numpy(slope)
        theirs.step()
        weights = ours.step(weights, {"w": slope})
        np.testing.assert_allclose(weights["w"], tensor.detach().numpy(), rtol=1e-4, atol=1e-6)
