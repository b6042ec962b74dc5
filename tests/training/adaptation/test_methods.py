"""What every method must do, whatever it does."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.head import AdaptedHead, Source, Target
from nnpm.training.adaptation.methods import METHODS
from nnpm.training.adaptation.methods.method import Batch, Method
from nnpm.training.adaptation.train import adapt_head
from nnpm.training.errors import TrainingError

CONFIG = AdaptConfig(steps=12, ramp_steps=3, refresh_steps=5, source_batch=16, target_batch=8)


def adapt(problem, method: str, seed: int = 0, **changes: object) -> dict[str, torch.Tensor]:
    head = adapt_head(
        problem.head.export(),
        problem.source,
        changes.pop("target", problem.target),
        method,
        CONFIG.model_copy(update=changes),
        seed,
    )
    assert not head.training
    return {name: value.clone() for name, value in head.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name: str, problem) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = adapt(problem, name)
    assert torch.equal(torch.rand(3), expected), "torch's global generator was moved"
    assert all(value.isfinite().all() for value in first.values())
    assert same(first, adapt(problem, name))

    kind = METHODS[name]
    base = problem.head.export().state_dict()
    base["classes"] = torch.nn.functional.normalize(base["classes"], dim=1)
    moved = {key for key in base if not torch.equal(first[f"head.{key}"], base[key])}
    assert moved == ({"projection.weight", "projection.bias", "classes"} if kind.trains else set())
    assert same(first, adapt(problem, name, seed=1)) is not kind.trains
    moved_statistics = not torch.equal(first["target_mean"], first["source_mean"])
    assert moved_statistics is kind.target_statistics


@pytest.mark.parametrize("name", METHODS)
def test_every_loss_is_a_finite_scalar_that_reaches_the_head(name: str, problem) -> None:
    method = METHODS[name](AdaptConfig(), problem.source, problem.target, problem.head)
    problem.head.eval()
    with torch.no_grad():
        method.refresh(problem.head)
    batch = problem.batch()
    loss = method.loss(batch, 0.5)
    assert loss.shape == ()
    assert loss.isfinite()
    if METHODS[name].trains:
        loss.backward()
        assert problem.head.head.projection.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_few_clips_without_views(name: str, problem) -> None:
    few = Target(problem.target.pooled[:3], problem.target.views[:0, :3])
    assert all(value.isfinite().all() for value in adapt(problem, name, target=few).values())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_memory_without_some_emotion(name: str, problem) -> None:
    kept = problem.source.emotion != 2
    problem.source = Source(problem.source.pooled[kept], problem.source.emotion[kept])
    assert all(value.isfinite().all() for value in adapt(problem, name).values())


def test_an_unknown_method_is_refused_by_name(problem) -> None:
    with pytest.raises(TrainingError, match="no method magic; choose among source_only, adabn"):
        adapt(problem, "magic")


def test_source_only_answers_as_the_base(problem) -> None:
    base = problem.head.export()
    head = adapt_head(base, problem.source, problem.target, "source_only", CONFIG, 0)
    for pooled in (problem.target.pooled, problem.source.pooled):
        torch.testing.assert_close(head.export()(pooled)[0], base(pooled)[0])
    assert torch.equal(head.align(problem.source.pooled), problem.source.pooled)


class Recorder(Method):
    """A method that only looks."""

    name = "recorder"
    seen: list[tuple[Batch, float]]
    refreshed: list[bool]

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        type(self).seen, type(self).refreshed = [], []

    def refresh(self, head: AdaptedHead) -> None:
        self.refreshed.append(head.training or torch.is_grad_enabled())

    def loss(self, batch: Batch, progress: float) -> torch.Tensor:
        self.seen.append((batch, progress))
        return 0.0 * batch.target_logits.sum()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(METHODS, "recorder", Recorder)
    return Recorder


def test_batches_are_balanced_and_of_one_view(problem, recorder) -> None:
    uneven = torch.tensor([0] * 20 + [1] * 5 + [3] * 5)  # emotion 2 has no slot
    problem.source = Source(problem.source.pooled, uneven)
    adapt(problem, "recorder", steps=30, replay_weight=0.0)
    versions = torch.stack([problem.target.pooled, *problem.target.views])
    views = set()
    for batch, _ in recorder.seen:
        assert batch.source_emotion.bincount(minlength=4).tolist() == [5, 5, 0, 5]
        assert torch.equal(uneven[batch.source_index], batch.source_emotion)
        assert len(batch.target_index.unique()) == 8
        assert torch.allclose(batch.target_projection.norm(dim=1), torch.ones(8))
    # with nothing learnt, dropout off, one view's clips have just that view's projections
    share = AdaptConfig().target_statistics
    adapted = AdaptedHead(problem.head.export(), problem.target, target_statistics=share).train()
    adapted.head.dropout.p = 0.0
    recorder.seen = []
    problem.head.head.dropout.p = 0.0
    adapt(problem, "recorder", steps=30, replay_weight=0.0)
    for batch, _ in recorder.seen:
        every = torch.stack([adapted.project_target(v[batch.target_index]) for v in versions])
        distance = (every - batch.target_projection).abs().amax((1, 2))
        assert distance.min() < 1e-5
        views.add(int(distance.argmin()))
    assert views == {0, 1, 2}


def test_a_small_target_is_taken_whole(problem, recorder) -> None:
    adapt(problem, "recorder", target_batch=500)
    for batch, _ in recorder.seen:
        assert sorted(batch.target_index.tolist()) == list(range(20))


def test_refreshes_progress_and_steps(problem, recorder) -> None:
    reported = []
    adapt_head(
        problem.head.export(), problem.source, problem.target, "recorder", CONFIG, 0,
        lambda done, total: reported.append((done, total)),
    )  # fmt: skip
    assert recorder.refreshed == [False] * 3  # before steps 0, 5 and 10
    assert [progress for _, progress in recorder.seen] == pytest.approx(np.arange(12) / 12)
    assert reported == [(step, 12) for step in range(1, 13)]


def test_replay_pulls_a_head_that_was_moved_back_to_the_old_answers(problem, monkeypatch) -> None:
    """The first step's gradient is that of the cross-entropy with the old head's answers."""
    base = problem.head.export()
    base.dropout.p = 0.0
    with torch.no_grad():
        answers = base(problem.source.pooled)[0].softmax(1)
    losses = []

    class Pusher(Recorder):
        name = "pusher"

        def loss(self, batch: Batch, progress: float) -> torch.Tensor:
            expected = F.kl_div(
                batch.source_logits.log_softmax(1), answers[batch.source_index],
                reduction="batchmean",
            )  # fmt: skip
            losses.append(expected.item())
            return -5.0 * batch.target_logits[:, 0].mean()

    monkeypatch.setitem(METHODS, "pusher", Pusher)
    ends = {}
    for weight in (0.0, 10.0):
        config = CONFIG.model_copy(
            update={"replay_weight": weight, "learning_rate": 0.02, "steps": 40}
        )
        adapt_head(base, problem.source, problem.target, "pusher", config, 0)
        ends[weight] = np.mean(losses[-10:])
    assert losses[0] == pytest.approx(0.0, abs=1e-5)
    assert ends[10.0] < 0.3 * ends[0.0]


def test_losses_without_bounds_are_told(problem, monkeypatch) -> None:
    class Explosion(Recorder):
        name = "explosion"

        def loss(self, batch: Batch, progress: float) -> torch.Tensor:
            return batch.target_logits.sum() * float("inf")

    monkeypatch.setitem(METHODS, "explosion", Explosion)
    with pytest.raises(TrainingError, match="explosion diverged: its weights are not finite"):
        adapt(problem, "explosion", steps=2, ramp_steps=0)
