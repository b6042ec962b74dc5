"""``nnpm adapt --full``: fine-tune the encoder too, with the audio of source and target."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...service.inference.bundle import Bundle
from ...service.jobs.folder import AdaptationTask
from ..bundle.encoder import embed, encoder_graph
from ..bundle.export import MOST_SLOTS, choose_slots, head_and_memory
from ..config import Config, TrainConfig
from ..corpora import Utterance
from ..data.batches import Samples
from ..errors import TrainingError
from ..source.run import Request, check_same_data, load_training_data, read, trained_network
from ..source.run import labels as labels_of
from ..source.trainer import Trainer
from .config import AdaptConfig, FullConfig
from .features import Encoder, TargetFeatures, extract_features
from .head import Floats, Full, Source, Start, Target
from .methods.method import softmax
from .train import adapt_head

_CORPUS = "(target)"


def fine_tune(
    base: Bundle,
    task: AdaptationTask,
    config: AdaptConfig,
    full: Full,
    on_step: Callable[[int, int], None],
) -> Start:
    """Train encoder and head on, with the target's surest pseudo labels, and build the memory anew.

    The head of the base is adapted first. The clips of each emotion that it is surest of join the
    source as one more corpus, with what it answered as their target; the recipe is that of source
    training at lower rates, from the weights of the run. Given labels are left to the head: what
    it answers to a labelled clip must not come from an encoder that has learnt the label.

    References:
        Lee, *Pseudo-Label*, 2013, and Zou et al., arXiv 1810.07911, for a share of every class.
        Here the labels come from a method that has looked at the whole target set, and are soft.

    Args:
        base: the bundle that is adapted.
        task: gives target, method and seed.
        config: the section ``full``, and the method's section.
        full: the run that made the base, and the source's audio.
        on_step: called with the steps taken and the steps in all.

    Returns:
        Head with the source's statistics, memory and encoder part of the fine-tuned network, and
        the target in the base's features.

    Raises:
        TrainingError: if the run does not fit the base, or its network cannot be trained.
        CorpusError: if a source corpus cannot be read.
    """
    settings = config.full
    request = read(full.run)
    _check_run(base, full.run, request)
    network = trained_network(full.run, request, base.labels)
    if not full.source.is_dir():
        raise TrainingError(f"--source is {full.source}: there is no such folder")
    features = _listen(task, base, config)  # before the corpora, which may take an hour to decode
    clips = [row.astype(np.float32) for row in features.rows]
    request = request.model_copy(update={"data": full.source.resolve()})
    data = load_training_data(request, full.cache)
    check_same_data(full.run, data)
    encode = Encoder(base.path / "model.onnx", 0, task.seed)
    pooled = np.stack([encode(clip)[0] for clip in clips])
    occurs = tuple(base.labels.index(name) for name in task.emotions or base.card.emotions)
    target = Target(pooled, np.zeros((0, *pooled.shape), np.float32), occurs)
    answers = _answers(base, task, config, target)
    chosen = surest(answers, settings.share)
    source = data.split.train
    heard = data.clips(source)
    pseudo = [
        Utterance(
            Path(f"/{index}"), _CORPUS, "", task.language, data.labels[answers[index].argmax()]
        )
        for index in chosen
    ]

    def samples(index: int) -> Samples:
        return heard[index] if index < len(source) else clips[chosen[index - len(source)]]

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            request.config.model_copy(update={"train": _recipe(request.config.train, settings)}),
            data.labels,
            network.encoder,
            [*source, *pseudo],
            samples,
            Path(folder),
            task.seed,
            torch.device("cpu"),
        )
        own = trainer.network.head
        trained = {n: p for n, p in network.head.named_parameters() if p.requires_grad}
        own.load_state_dict(trained, strict=False)
        smoothing = request.config.loss.label_smoothing
        soft = torch.from_numpy(answers[chosen]) * (1 - smoothing) + smoothing / len(data.labels)
        trainer.target[len(source) :] = soft
        tuned = trainer.fit(on_step)
    slots = [source[index] for index in choose_slots(source, MOST_SLOTS)]
    encoder = encoder_graph(tuned, base.card.training.get("precision", "int8"))
    head, memory = head_and_memory(
        tuned.head.export(), slots, embed(encoder, list(data.clips(slots))), data.labels
    )
    return Start(head, memory, encoder, pooled)


def _check_run(base: Bundle, run: Path, request: Request) -> None:
    """Check that the run made the base, by what the base's card says of it.

    Raises:
        TrainingError: if it did not.
    """
    if (known := labels_of(run)) != base.labels:
        raise TrainingError(
            f"{run} knows {', '.join(known)}; the base {base.path} knows "
            f"{', '.join(base.labels)}: give the run that made the base"
        )
    card = base.card.training
    said = {corpus["name"] for corpus in card.get("corpora", [])}
    for what, of_run, of_base in (
        ("corpora", " ".join(sorted(request.corpora)), " ".join(sorted(said))),
        ("seed", request.seed, card.get("seed")),
        ("config", _described(request.config), _described(card.get("config"))),
    ):
        if of_run != of_base:
            shown = "" if what == "config" else f" ({of_run}; the card says {of_base})"
            raise TrainingError(
                f"{run} did not make the base {base.path}: its {what} is another{shown}; give the "
                "run that made it"
            )


def _described(config: Config | dict[str, Any] | None) -> dict[str, Any] | None:
    """A recipe without what differs from place to place; None if it is none."""
    try:
        found = Config.model_validate(config).model_dump(mode="json")
    except ValueError:
        return None
    found["encoder"]["source"] = Path(found["encoder"]["source"]).name
    return found


def surest(answers: Floats, share: float) -> list[int]:
    """Of the clips with the same answer, the share that is most certain; at least one.

    Args:
        answers: probabilities, shape ``(clips, emotions)``.
        share: of the clips with the same answer.

    Returns:
        Indices, in order.

    Examples:
        >>> surest(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32), 0.5)
        [0, 2]
    """
    best, certainty = answers.argmax(1), answers.max(1)
    chosen: list[int] = []
    for emotion in np.unique(best):
        own = np.flatnonzero(best == emotion)
        ranked = own[np.argsort(-certainty[own], kind="stable")]
        chosen += ranked[: max(1, round(share * len(own)))].tolist()
    return sorted(chosen)


def _listen(task: AdaptationTask, base: Bundle, config: AdaptConfig) -> TargetFeatures:
    """The target's turns as samples, in the place of features."""
    return extract_features(
        task.target,
        lambda samples: samples.astype(np.float16),
        base.card.window_s,
        config,
        threads=task.threads,
        channels=task.channels,
    )


def _answers(base: Bundle, task: AdaptationTask, config: AdaptConfig, target: Target) -> Floats:
    """What the base's head answers on the target after adaptation."""
    temperature = base.card.decision.temperature
    head = adapt_head(
        base.head(),
        Source.from_memory(base.memory(), config.most_slots),
        target,
        task.method,
        config,
        task.seed,
        temperature=temperature,
    )
    projected = head.project(head.standardise(target.pooled))
    logits = head.classify(projected) / np.float32(temperature)
    return softmax(np.where(target.open(logits.shape[1]), logits, np.float32(-1e4)))


def _recipe(train: TrainConfig, settings: FullConfig) -> TrainConfig:
    return train.model_copy(
        update={
            "steps": settings.steps,
            "head_steps": 0,
            "warmup_steps": min(train.warmup_steps, settings.steps // 5),
            "encoder_rate": train.encoder_rate * settings.rate,
            "head_rate": train.head_rate * settings.rate,
        }
    )
