"""The training loop of the encoder and its head: learning rate, checkpoint, resume, TensorBoard."""

import json
import math
import pickle  # nosec B403 # its error is caught; nothing is unpickled
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ...service.files import replacing
from ...service.inference.card import CORE_EMOTIONS
from ..config import Config, FunctionalsConfig
from ..corpora import Utterance
from ..data.augment import SpectralAugment, mixup
from ..data.batches import BalancedSampler, pad, training_batches
from ..data.clips import Ragged
from ..errors import TrainingError
from ..evaluation import unweighted_average_recall
from ..network.memory import ExternalMemory, multilabel_loss, smooth_one_hot, soft_cross_entropy
from ..network.network import Network


def warm_cosine(step: int, *, total: int, warmup: float) -> float:
    """Factor of the learning rate: a linear warm-up times a half cosine that falls to 0.

    Examples:
        >>> [round(warm_cosine(step, total=4, warmup=2), 3) for step in range(4)]
        [0.5, 0.854, 0.5, 0.146]
    """
    return min(1.0, (step + 1) / max(1.0, warmup)) * 0.5 * (1 + math.cos(math.pi * step / total))


_CHECKPOINT = "checkpoint.pt"


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint of ``run``; a crash leaves either the old one or the new one."""
    with replacing(run / _CHECKPOINT) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(run: Path) -> dict[str, Any] | None:
    """Read the checkpoint of ``run`` (tensors and numbers only), or None if there is none.

    Raises:
        TrainingError: if it cannot be read.
    """
    path = run / _CHECKPOINT
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged; train again with another --out") from error
    return state


_LOG = "log.jsonl"
_EVALUATION_BATCH = 32
_LONGEST_S = 10


def choose_precision(requested: str, device: torch.device) -> torch.dtype:
    """The dtype of autocast: bfloat16 where the hardware multiplies matrices in it."""
    if requested == "auto":
        amx = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
        return torch.bfloat16 if amx or device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[requested]


def _decaying_average(average: Tensor, current: Tensor, count: Tensor, *, decay: float) -> Tensor:
    """Exponential average with a smaller decay at first, to forget the initial weights."""
    keep = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
    return torch.lerp(current, average, keep) if average.is_floating_point() else current


@torch.no_grad()
def embed(
    network: Network, clips: Sequence[NDArray[np.float32]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Run the network on whole clips (their first ten seconds), batched by length.

    Args:
        network: on ``device``; it is put into evaluation mode.
        clips: samples at 16 kHz, shape ``(num_samples,)`` each.
        device: where to compute.

    Returns:
        Logits ``(clips, emotions)`` and pooled features ``(clips, D)``, float32 on the CPU.
    """
    network.eval()
    order = np.argsort([len(clip) for clip in clips], kind="stable")
    logits, pooled = [], []
    for start in range(0, len(order), _EVALUATION_BATCH):
        chosen = [clips[i][: _LONGEST_S * 16_000] for i in order[start : start + _EVALUATION_BATCH]]
        waveform, lengths = pad(chosen)
        batch_logits, batch_pooled = network(waveform.to(device), lengths.to(device))
        logits.append(batch_logits.float().cpu())
        pooled.append(batch_pooled.float().cpu())
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    return torch.cat(logits)[back], torch.cat(pooled)[back]


class Trainer:
    """Source learning (method.md, parts 1, 2 and 5) of the encoder and its head.

    The head on the functionals follows: :func:`.functionals_head.add_functionals`.

    Every epoch seeds its draws from ``(seed, epoch)``, so that a resumed run gives the same network
    as an uninterrupted one.

    Args:
        config: the recipe.
        labels: emotions in the order of the logits.
        utterances: the training side.
        features: log-mel of their clips as recorded, then of their variants.
        run: folder for checkpoints and logs.
        seed: of weights, draws and augmentation.
        device: where to train.
    """

    def __init__(
        self,
        config: Config,
        labels: tuple[str, ...],
        utterances: Sequence[Utterance],
        features: Sequence[Ragged],
        run: Path,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.features, self.run = config, features, run
        self.seed, self.device = seed, device
        self.precision = choose_precision(config.train.precision, device)
        torch.manual_seed(seed)
        alone = config.model_copy(update={"functionals": FunctionalsConfig(enabled=False)})
        self.network = Network(alone, labels).to(device)
        self.network.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(
            self.network,
            avg_fn=partial(_decaying_average, decay=config.train.average_decay),
            use_buffers=True,
        )
        self.emotion = torch.tensor([labels.index(u.emotion) for u in utterances], device=device)
        self.core = [labels.index(emotion) for emotion in CORE_EMOTIONS if emotion in labels]
        self.memory = ExternalMemory(
            self.emotion, config.head.projection, config.loss.memory_momentum
        ).to(device)
        self.sampler = BalancedSampler(utterances)
        self.steps = config.train.steps_per_epoch or max(
            1, len(utterances) // config.train.batch_size
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
        )
        total, warmup = self.steps * config.train.epochs, self.steps * config.train.warmup_epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, partial(warm_cosine, total=total, warmup=warmup)
        )
        self.augment = SpectralAugment(config.augment, config.front_end)
        self.epoch = 0

    def resume(self) -> None:
        """Continue from the run's checkpoint, if it has one."""
        state = load_checkpoint(self.run)
        if state is not None:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.epoch = state["epoch"]
        self._forget_log_after(self.epoch)

    def fit(self, validation: tuple[Sequence[NDArray[np.float32]], Sequence[str]]) -> Network:
        """Train to the last epoch and return the averaged network, which has no functionals.

        Args:
            validation: clips and emotions of held-out speakers. Their UAR is logged; nothing is
                selected by it.
        """
        # purge_step drops the points of epochs after the checkpoint from the curves
        writer = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.epoch or None)
        bar = tqdm(
            range(self.epoch, self.config.train.epochs),
            desc="train",
            unit="epoch",
            initial=self.epoch,
            total=self.config.train.epochs,
            dynamic_ncols=True,
        )
        for epoch in bar:
            figures = self._train_epoch(epoch)
            if validation[1]:
                figures["validation_uar"] = self._score(*validation)
            for name, value in figures.items():
                writer.add_scalar(name, value, epoch)
            with (self.run / _LOG).open("a") as log:
                log.write(json.dumps({"epoch": epoch, **figures}) + "\n")
            bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()})
            self.epoch = epoch + 1
            save_checkpoint(
                self.run,
                {"epoch": self.epoch}
                | {name: part.state_dict() for name, part in self._parts().items()},
            )
        writer.close()
        network = self.average.module
        assert isinstance(network, Network)
        return network.eval()

    def _forget_log_after(self, epoch: int) -> None:
        """Drop the rows of an epoch that was logged but not yet in the checkpoint."""
        log = self.run / _LOG
        if log.exists():
            rows = log.read_text().splitlines(keepends=True)
            # in order, one per epoch; what follows the last whole epoch may be half a row
            with replacing(log) as temporary:
                temporary.write_text("".join(rows[:epoch]))

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average,
            "memory": self.memory,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        rng = np.random.default_rng([self.seed, epoch])
        torch.manual_seed(int(rng.integers(2**62)))
        if epoch == self.config.loss.memory_start_epoch:
            self._fill_memory(rng)
        self.network.train()
        size = self.config.train.batch_size
        indices = self.sampler.draw(self.steps * size, rng)
        totals: dict[str, float] = {}
        batches = training_batches(self.features, indices, self.config.augment, size, rng)
        for log_mel, drawn in batches:
            index = drawn.to(self.device)
            losses, projection = self._losses(log_mel.to(self.device), index, epoch)
            loss = torch.stack(list(losses.values())).sum()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip_gradient)
            self.optimizer.step()
            self.schedule.step()
            self.average.update_parameters(self.network)
            if projection is not None:
                self.memory.update(index, projection)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / self.steps
        return totals

    def _losses(
        self, log_mel: Tensor, index: Tensor, epoch: int
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the weighted losses of a batch, and z unless clips were mixed."""
        loss = self.config.loss
        emotion = self.emotion[index]
        target = smooth_one_hot(emotion, len(self.network.labels), loss.label_smoothing)
        with torch.no_grad():
            everywhere = log_mel.new_ones(len(log_mel), 1, 1, log_mel.shape[3])
            features = self.network.front_end.normalise(self.augment(log_mel), everywhere)
            features = self.augment.mask(features)
        mixed = bool(torch.rand(()) < self.config.augment.mixup_p)
        if mixed:
            features, target = mixup(features, target, self.config.augment.mixup_alpha)
        logits, projection = self.network.head(self._encode(features))
        losses = {"cross_entropy": soft_cross_entropy(logits, target).mean()}
        if loss.core_weight > 0 and self.core:
            core = soft_cross_entropy(logits[:, self.core], target[:, self.core]).mean()
            losses["core"] = loss.core_weight * core
        if loss.multilabel_weight > 0 and epoch >= loss.memory_start_epoch and not mixed:
            multilabel = multilabel_loss(
                self.memory.similarities(projection),
                self.memory.emotion == emotion[:, None],
                loss.multilabel_positive,
                loss.hard_negative_share,
                own=index,
            )
            losses["multilabel"] = loss.multilabel_weight * multilabel.mean()
        return losses, None if mixed else projection.detach()

    def _encode(self, features: Tensor) -> Tensor:
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision is not torch.float32
        ):
            pooled: Tensor = self.network.encoder(
                features.contiguous(memory_format=torch.channels_last), None
            )
        return pooled.float()

    @torch.no_grad()
    def _fill_memory(self, rng: np.random.Generator) -> None:
        """Fill the memory in one pass over the source, with one crop per clip."""
        self.network.eval()
        augment = self.config.augment.model_copy(update={"clean_share": 1.0})
        count, size = len(self.emotion), self.config.train.batch_size
        filled = []
        # the first clips are repeated at the end, so that the last batch is full
        order = np.resize(np.arange(count), -(-count // size) * size)
        for log_mel, _ in training_batches(self.features, order, augment, size, rng):
            everywhere = torch.ones(size, 1, 1, log_mel.shape[3], device=self.device)
            features = self.network.front_end.normalise(log_mel.to(self.device), everywhere)
            filled.append(self.network.head.project(self._encode(features)))
        self.memory.fill(torch.cat(filled)[:count])

    def _score(self, clips: Sequence[NDArray[np.float32]], emotions: Sequence[str]) -> float:
        network = self.average.module
        assert isinstance(network, Network)
        logits, _ = embed(network, clips, self.device)
        truth = np.array([network.labels.index(emotion) for emotion in emotions])
        return unweighted_average_recall(truth, logits.argmax(1).numpy())
