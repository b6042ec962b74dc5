"""The training loop: rates, losses, checkpoint, resume, TensorBoard."""

import io
import json
import math
import pickle  # nosec B403 # its error is caught; nothing is unpickled
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ...service.files import replacing
from ..config import Config, TrainConfig
from ..corpora import Utterance
from ..data.batches import Batch, BatchSampler, Samples
from ..errors import TrainingError
from ..network.encoders import Encoder
from ..network.memory import ExternalMemory, multilabel_loss, soft_cross_entropy
from ..network.network import Network
from .kept import KeptBatches
from .processes import ALONE, Processes

_CHECKPOINT, _LOG = "checkpoint.pt", "log.jsonl"
_CHECKPOINT_STEPS = 50
_LEAST_RATE = 0.05


def choose_precision(requested: str, device: torch.device) -> torch.dtype:
    """The dtype of autocast: bfloat16 where the hardware multiplies in it."""
    if requested == "auto":
        able = torch.cpu.get_capabilities()
        cpu = any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
        use = device.type == "cuda" or (device.type == "cpu" and cpu)
        return torch.bfloat16 if use else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[requested]


def rate(step: int, config: TrainConfig, *, first: int) -> float:
    """Factor of a learning rate: zero before ``first``, a linear warm-up, and a half cosine.

    Examples:
        >>> config = TrainConfig(steps=100, warmup_steps=10)
        >>> [round(rate(step, config, first=20), 3) for step in (19, 20, 25, 60, 99)]
        [0.0, 0.0, 0.43, 0.378, 0.05]
    """
    if step < first:
        return 0.0
    warm = min(1.0, (step - first) / config.warmup_steps) if config.warmup_steps else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
    return warm * (_LEAST_RATE + (1.0 - _LEAST_RATE) * cosine)


def targets(
    utterances: Sequence[Utterance], labels: Sequence[str], smoothing: float, listeners: float
) -> Tensor:
    """What each clip should be answered: its label, in part what listeners heard, smoothed.

    Args:
        utterances: the training side.
        labels: emotions in the order of the logits.
        smoothing: share that all emotions have evenly.
        listeners: share of what was heard, where it is known; emotions that share the first place
            share it.

    Returns:
        Rows that sum to 1, shape ``(clips, emotions)``.
    """
    rows = torch.zeros(len(utterances), len(labels))
    for row, utterance in zip(rows, utterances, strict=True):
        heard = [labels.index(e) for e in utterance.heard if e in labels]
        row[labels.index(utterance.emotion)] += 1.0 - listeners if heard else 1.0
        for place in heard:
            row[place] += listeners / len(heard)
    return rows * (1.0 - smoothing) + smoothing / len(labels)


def contrast(projection: Tensor, emotion: Tensor, corpus: Tensor, temperature: float) -> Tensor:
    """Draw clips of one emotion together across corpora.

    References:
        Khosla et al., *Supervised Contrastive Learning*, arXiv 2004.11362. Positives here are of
        other corpora alone, and clips of the same corpus and emotion are neither drawn nor pushed,
        so that nothing is learnt from what one corpus's clips share.

    Args:
        projection: z, shape ``(batch, width)``.
        emotion: index per clip, shape ``(batch,)``.
        corpus: index per clip, shape ``(batch,)``.
        temperature: divides the cosines.

    Returns:
        A scalar; 0 if no clip has a positive.
    """
    same = emotion[:, None] == emotion
    positive = same & (corpus[:, None] != corpus)
    logits = (projection @ projection.T / temperature).masked_fill(same & ~positive, -1e4)
    log_share = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    count = positive.sum(1)
    mean = (log_share * positive).sum(1) / count.clamp(min=1)
    return -mean.sum() / (count > 0).sum().clamp(min=1)


class Trainer:
    """Source learning (method.md, parts 1, 2 and 5): fine-tunes an encoder, and trains its head.

    The head is trained alone first, then the encoder's stages with rates that halve from one to the
    one below. Every step draws from ``(seed, step)``, so that a resumed run gives the same network
    as an uninterrupted one.

    References:
        Kumar et al., *Fine-Tuning Can Distort Pretrained Features*, arXiv 2202.10054, for the head
        first; Izmailov et al., arXiv 1803.05407, for the average of the last weights.

    Args:
        config: the recipe.
        labels: emotions in the order of the logits.
        encoder: with its pretrained weights.
        utterances: the training side.
        clips: gives the samples of an utterance by its index.
        run: folder for checkpoints and logs.
        seed: of weights, draws and augmentation.
        device: where to train.
        processes: those that train it together; the first of them writes files.
    """

    def __init__(
        self,
        config: Config,
        labels: tuple[str, ...],
        encoder: Encoder,
        utterances: Sequence[Utterance],
        clips: Callable[[int], Samples],
        run: Path,
        seed: int,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.run, self.seed, self.device = config, run, seed, device
        self.processes = processes
        self.precision = choose_precision(config.train.precision, device)
        torch.manual_seed(seed)
        corpora = sorted({u.corpus for u in utterances})
        self.network = Network(encoder, config.head, labels, len(corpora)).to(device)
        encoder.mask_p = config.augment.mask_p
        self.average = AveragedModel(self.network)
        self.sampler: BatchSampler | KeptBatches
        self.sampler = BatchSampler(utterances, clips, config.train, config.augment, seed)
        emotion = torch.tensor([labels.index(u.emotion) for u in utterances])
        self.emotion = emotion.to(device)
        self.corpus = torch.tensor([corpora.index(u.corpus) for u in utterances]).to(device)
        loss = config.loss
        self.target = targets(utterances, labels, loss.label_smoothing, loss.listeners).to(device)
        self.memory = ExternalMemory(self.emotion, config.head.projection, loss.memory_momentum).to(
            device
        )
        self.optimizer = torch.optim.AdamW(
            self._groups(encoder), weight_decay=config.train.weight_decay, betas=(0.9, 0.98)
        )
        self.step = 0

    def _groups(self, encoder: Encoder) -> list[dict[str, Any]]:
        """Parameters with the rate and the first step of each; all others are frozen."""
        train = self.config.train
        self.network.requires_grad_(requires_grad=False)
        groups: list[dict[str, Any]] = [
            {"params": stage, "peak": train.encoder_rate * train.layer_decay**below}
            for below, stage in enumerate(reversed(encoder.stages()[self.config.frozen.stages :]))
        ]
        for group in groups:
            group["first"] = min(train.head_steps, train.steps)
        head = list(self.network.head.parameters())
        groups.append({"params": head, "peak": train.head_rate, "first": 0})
        for group in groups:
            for parameter in group["params"]:
                parameter.requires_grad_(requires_grad=True)
        return groups

    def resume(self) -> None:
        """Continue from the run's checkpoint, if it has one.

        Raises:
            TrainingError: if it cannot be read, or does not fit the recipe.
        """
        path, first = self.run / _CHECKPOINT, self.processes.first
        content = self.processes.share(path.read_bytes() if first and path.exists() else None)
        if content is not None:
            try:
                state = torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
                for name, part in self._parts().items():
                    part.load_state_dict(state[name])
                self.step = state["step"]
            except (EOFError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError):
                raise TrainingError(
                    f"{path} is damaged, or of another nnpm; train again with another --out"
                ) from None
        rows = self.run / _LOG
        if first and rows.exists():  # forget what was logged after the checkpoint
            kept = rows.read_text().splitlines(keepends=True)[: self.step]
            with replacing(rows) as temporary:
                temporary.write_text("".join(kept))

    def keep(self, known: str) -> None:
        """Compute what the encoder's frozen part gives once, or find what was, and draw from it.

        Nothing happens if the recipe keeps nothing, or no step is left.

        Args:
            known: digest of all that it depends on.

        Raises:
            TrainingError: if there is nothing to keep, or no room for it.
            OSError: if it cannot be written.
        """
        frozen, sampler = self.config.frozen, self.sampler
        if not frozen.copies or self.step >= self.config.train.steps:
            return
        assert isinstance(sampler, BatchSampler)

        def encode(waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            self.network.train()  # gaps and dropout vary a copy
            with torch.no_grad(), self._autocast():
                waveform, lengths = waveform.to(self.device), lengths.to(self.device)
                return self.network.encoder.lower(waveform, lengths, frozen.stages)

        self.sampler = KeptBatches(sampler, encode, self.config, self.run, known)

    def _autocast(self) -> torch.autocast:
        enabled = self.precision is not torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=enabled)

    def _pool(self, batch: Batch) -> Tensor:
        given, lengths = batch.waveform.to(self.device), batch.lengths.to(self.device)
        if given.dim() > 2:
            return self.network.from_states(given, lengths, self.config.frozen.stages)
        pooled: Tensor = self.network(given, lengths)
        return pooled

    def fit(self, on_step: Callable[[int, int], None] = lambda *_: None) -> Network:
        """Train to the last step, and return the network with the averaged weights.

        Args:
            on_step: called after every step with the steps taken and the steps in all.
        """
        total, first = self.config.train.steps, self.processes.first
        self._estimate()
        bar = tqdm(
            range(self.step, total),
            desc="train",
            unit="step",
            initial=self.step,
            total=total,
            dynamic_ncols=True,
            disable=not first,
        )
        with ThreadPoolExecutor(1) as pool, self._log() as log:
            rank, count = self.processes.rank, self.processes.count
            ours = self.step + (rank - self.step) % count  # the next step that this process draws
            drawn = pool.submit(self.sampler.draw, ours)
            for step in bar:
                batch = None
                if step == ours:
                    ours += count
                    batch, drawn = drawn.result(), pool.submit(self.sampler.draw, ours)
                batch = self.processes.deal(batch, step % count)
                figures = self._train_step(batch, step)
                log(step, figures)
                bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()})
                self.step = step + 1
                on_step(self.step, total)
                if first and (self.step % _CHECKPOINT_STEPS == 0 or self.step == total):
                    self._save()
        network = self.average.module
        assert isinstance(network, Network)
        return network.eval()

    @contextmanager
    def _log(self) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """What the figures of a step are given to; it is on the disk when a checkpoint is."""
        if not self.processes.first:
            yield lambda *_: None
            return
        with (
            (self.run / _LOG).open("a", buffering=1) as rows,
            SummaryWriter(str(self.run / "tensorboard"), purge_step=self.step or None) as writer,
        ):

            def log(step: int, figures: dict[str, float]) -> None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)
                rows.write(json.dumps({"step": step, **figures}) + "\n")

            yield log

    def _estimate(self) -> None:
        """Say how long it will take, from one step that changes nothing."""
        if self.step >= self.config.train.steps:
            return
        first = self.processes.first
        batch = self.processes.deal(self.sampler.draw(self.step) if first else None, 0)
        kept = {name: value.clone() for name, value in self.network.head.named_buffers()}
        started = time.perf_counter()
        losses, _ = self._losses(batch, self.step, encode=True, memory=False)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        float(loss.detach())  # a GPU is waited for
        seconds = time.perf_counter() - started
        self.optimizer.zero_grad()
        for name, value in self.network.head.named_buffers():
            value.copy_(kept[name])
        steps = self.config.train.steps - self.step
        minutes = max(1.0, steps * seconds / 60.0)
        if first:
            tqdm.write(
                f"about {minutes:.0f} min on {self.device.type}: {steps} steps of {seconds:.1f} s",
                file=sys.stderr,
            )

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average,
            "memory": self.memory,
            "optimizer": self.optimizer,
        }

    def _save(self) -> None:
        """Replace the checkpoint; a crash leaves either the old one or the new one."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        with replacing(self.run / _CHECKPOINT) as temporary, temporary.open("wb") as file:
            torch.save({"step": self.step, **state}, file)

    def _train_step(self, batch: Batch, step: int) -> dict[str, float]:
        train = self.config.train
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step, train, first=group["first"])
        losses, projection = self._losses(
            batch,
            step,
            encode=step >= train.head_steps,
            memory=step >= self.config.loss.memory_start * train.steps,
        )
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average(p for p in self.network.parameters() if p.requires_grad)
        trained = [p for p in self.network.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(trained, train.clip_gradient)
        self.optimizer.step()
        self.memory.update(batch.index.to(self.device), projection)
        if step >= train.average_from * train.steps or step == train.steps - 1:
            self.average.update_parameters(self.network)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(
        self, batch: Batch, step: int, *, encode: bool, memory: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted losses of a batch, and z; the same in all processes.

        Args:
            batch: of the sampler, with this process's share of the waveforms.
            step: seeds what is varied.
            encode: whether the encoder is trained too.
            memory: whether the memory's loss counts already.
        """
        loss, index = self.config.loss, batch.index.to(self.device)
        emotion, corpus = self.emotion[index], self.corpus[index]
        seed = self.seed * 1_000_003 + step
        torch.manual_seed(seed + (self.processes.rank << 48))  # other gaps for other rows
        with self._autocast(), torch.set_grad_enabled(encode):
            pooled = self._pool(batch)
        if self.processes.count > 1:
            pooled = self.processes.gather(pooled, len(index))
            torch.manual_seed(seed)  # and the same dropout in all
        logits, projection = self.network.head(self.network.head.standardise(pooled, corpus))
        losses = {"cross_entropy": soft_cross_entropy(logits, self.target[index]).mean()}
        if loss.contrast_weight > 0:
            across = contrast(projection, emotion, corpus, loss.contrast_temperature)
            losses["contrast"] = loss.contrast_weight * across
        if loss.multilabel_weight > 0 and memory:
            same = self.memory.emotion == emotion[:, None]
            multilabel = multilabel_loss(
                self.memory.similarities(projection),
                same & (self.corpus != corpus[:, None]),
                loss.multilabel_positive,
                loss.hard_negative_share,
                negatives=~same,
            )
            losses["multilabel"] = loss.multilabel_weight * multilabel.mean()
        return losses, projection.detach()
