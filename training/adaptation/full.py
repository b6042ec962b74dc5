"""``nnpm adapt --full``: fine-tune the whole network with the audio of source and target."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...service.inference.bundle import Memory
from ...service.inference.card import Card
from ..bundle.calibration import build_memory
from ..corpora import Utterance, load, load_folder
from ..corpora.manifest import MANIFEST
from ..data.augment import SpectralAugment
from ..data.batches import BalancedSampler, training_batches
from ..data.clips import Ragged, load_clips, load_features
from ..errors import TrainingError
from ..network.memory import multilabel_loss, smooth_one_hot, soft_cross_entropy
from ..network.network import Network
from .config import AdaptConfig
from .head import AdaptedHead, Source, Target
from .methods import METHODS
from .methods.method import Batch


@dataclass(frozen=True, slots=True, eq=False)
class SourceAudio:
    """Labelled source clips with their audio.

    Attributes:
        utterances: in order.
        emotion: index of the logit, int64, shape ``(clips,)``.
        clips: their samples.
        features: their log-mel power before normalisation.
    """

    utterances: list[Utterance]
    emotion: Tensor
    clips: Ragged
    features: Ragged

    def memory(self, network: Network) -> Memory:
        """The memory of ``network``: one pass over the clips."""
        return build_memory(network, self.utterances, self.clips)


def load_source(
    folder: Path, corpora: tuple[str, ...], card: Card, network: Network, cache: Path
) -> SourceAudio:
    """Read the source corpora of a bundle.

    Speakers that the card lists as held out are left out, and so are emotions of no label.

    Args:
        folder: holds one folder per corpus, or is one corpus with a metadata.csv.
        corpora: names; empty for those in the card.
        card: of the bundle.
        network: of the bundle; its front end computes the features.
        cache: folder for decoded clips.

    Raises:
        CorpusError: if a corpus cannot be read.
        TrainingError: if an emotion of the bundle has no clip.
    """
    trained: list[dict[str, object]] = card.training.get("corpora", [])
    names = corpora or tuple(str(corpus["name"]) for corpus in trained)
    if not corpora and (folder / MANIFEST).is_file():
        found = load_folder(folder)
    else:
        found = [utterance for name in names for utterance in load(name, folder)]
    out = _held_out(trained)
    kept = [u for u in found if u.emotion in card.labels and (u.corpus, u.speaker) not in out]
    if missing := set(card.labels) - {u.emotion for u in kept}:
        raise TrainingError(
            f"the source in {folder} has no clip of {', '.join(sorted(missing))}, which the bundle "
            "can answer: add such clips"
        )
    clips = load_clips(kept, cache)
    emotion = torch.tensor([card.labels.index(u.emotion) for u in kept])
    return SourceAudio(kept, emotion, clips, load_features(clips, network.config.front_end))


def _held_out(trained: list[dict[str, object]]) -> set[tuple[str, str]]:
    """Corpus and speaker of the clips that calibrate and test the base."""
    held_out = set()
    for corpus in trained:
        speakers = corpus.get("speakers", {})
        assert isinstance(speakers, dict)
        for side in ("validation", "test"):
            held_out |= {(str(corpus["name"]), speaker) for speaker in speakers.get(side, [])}
    return held_out


_LONGEST_FRAMES = 624
"""Longer clips are cut to this, ten seconds, when they are pooled whole."""


def in_memory(log_mels: list[Tensor]) -> Ragged:
    """Features of clips, ``(num_frames, n_mels)`` each, without a file."""
    bounds = np.cumsum([0, *map(len, log_mels)], dtype=np.int64)
    values = torch.cat(log_mels).numpy().astype(np.float16)
    return Ragged(values, bounds[:-1], bounds[1:], Path())


def fine_tune(
    network: Network,
    audio: SourceAudio,
    clips: Ragged,
    method: str,
    config: AdaptConfig,
    seed: int,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Network:
    """Train encoder and head with the source's loss and the method's loss.

    Each step takes augmented crops of both sides. The source's loss is that of training
    (docs/research/method.md: cross-entropy and the true multilabel): the memory changes with the
    encoder, so that there is nothing to replay. Batch normalisations keep their statistics; those
    at the head's entrance are the source's for the source and the target's for the target. Every
    ``refresh_steps`` the pooled features of both sides are computed again.

    Args:
        network: of the bundle; not changed.
        audio: the source.
        clips: log-mel power of the target's clips.
        method: a name in :data:`nnpm.training.adaptation.methods.METHODS`.
        config: the section ``full``, and the method's section.
        seed: of all draws; torch's global generator is left as it was.
        on_step: called after every step with the steps taken and the steps in all.

    Returns:
        The network, in evaluation mode, with the source's statistics in its head.

    Raises:
        TrainingError: if the method takes no training steps, or training diverges.
    """
    if not METHODS[method].trains:
        raise TrainingError(
            f"--full trains the whole network, but {method} takes no training steps; choose "
            "another --method"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _FineTuning(network, audio, clips, method, config, seed).run(on_step)


class _FineTuning:
    def __init__(
        self,
        network: Network,
        audio: SourceAudio,
        clips: Ragged,
        method: str,
        config: AdaptConfig,
        seed: int,
    ) -> None:
        self.config, self.recipe = config, network.config
        self.audio, self.clips = audio, clips
        self.network = deepcopy(network).eval()
        self.augment = SpectralAugment(self.recipe.augment, self.recipe.front_end)
        # the sets that methods see as a whole; updated in place as the encoder changes
        self.source = Source(self._pool(audio.features), audio.emotion)
        pooled = self._pool(clips)
        self.target = Target(pooled, pooled.new_zeros(0, *pooled.shape))
        self.head = AdaptedHead(
            self.network.head, self.target, target_statistics=config.target_statistics
        )
        self.method = METHODS[method](config, self.source, self.target, self.head)
        self.rng = np.random.default_rng(seed)

    def run(self, on_step: Callable[[int, int], None]) -> Network:
        full = self.config.full
        encoder = list(self.network.encoder.parameters())
        head = [weight for weight in self.head.parameters() if weight.requires_grad]
        trained = [*encoder, *head, *self.method.parameters()]
        optimizer = torch.optim.AdamW(
            trained, lr=full.learning_rate, weight_decay=full.weight_decay
        )
        sides = zip(self._source_batches(), self._target_batches(), strict=True)
        for step, (source, target) in enumerate(sides):
            if step % self.config.refresh_steps == 0:
                self._refresh(again=step > 0)
            ramp = min(1.0, step / self.config.ramp_steps) if self.config.ramp_steps else 1.0
            batch = self._batch(source, target)
            loss = self._source_loss(batch) + ramp * self.method.loss(batch, step / full.steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, full.clip_gradient)
            optimizer.step()
            on_step(step + 1, full.steps)
        if not all(bool(weight.isfinite().all()) for weight in trained):
            raise TrainingError(
                f"{self.method.name} diverged: its weights are not finite; "
                f"lower full.learning_rate ({full.learning_rate:g}) or the method's weights"
            )
        self.network.head = deepcopy(self.head.head)
        return self.network.requires_grad_(True).eval()

    @torch.no_grad()
    def _refresh(self, *, again: bool) -> None:
        """Pool both sides, and update the method, from whole clips."""
        if again:
            self.source.pooled.copy_(self._pool(self.audio.features))
            self.target.pooled.copy_(self._pool(self.clips))
            self.head.observe(self.target)
        self.head.eval()
        self.slots = self.head.project_source(self.source.pooled)
        self.method.refresh(self.head)
        self.head.train()

    def _batch(self, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Batch:
        """Run the network on crops and their indices, of both sides."""
        source_projection = self.head.project_source(self._encode(source[0]))
        target_projection = self.head.project_target(self._encode(target[0]))
        return Batch(
            source_index=source[1],
            source_projection=source_projection,
            source_logits=self.head.classify(source_projection),
            source_emotion=self.audio.emotion[source[1]],
            target_index=target[1],
            target_projection=target_projection,
            target_logits=self.head.classify(target_projection),
        )

    def _source_loss(self, batch: Batch) -> Tensor:
        numbers, emotion = self.recipe.loss, batch.source_emotion
        truth = smooth_one_hot(emotion, len(self.network.labels), numbers.label_smoothing)
        cross_entropy = soft_cross_entropy(batch.source_logits, truth).mean()
        multilabel = multilabel_loss(
            batch.source_projection @ self.slots.T,
            self.audio.emotion == emotion[:, None],
            numbers.multilabel_positive,
            numbers.hard_negative_share,
            own=batch.source_index,
        )
        return cross_entropy + numbers.multilabel_weight * multilabel.mean()

    def _encode(self, log_mel: Tensor) -> Tensor:
        """Augment a batch of full crops, and pool it."""
        everywhere = log_mel.new_ones(len(log_mel), 1, 1, log_mel.shape[3])
        with torch.no_grad():
            varied = self.augment(log_mel)
            features = self.augment.mask(self.network.front_end.normalise(varied, everywhere))
        return self.network.pool(varied, features, None)

    @torch.no_grad()
    def _pool(self, log_mels: Ragged) -> Tensor:
        """Pool whole clips as recorded, one by one, so that nothing is padded."""
        rows = []
        for log_mel in log_mels:
            whole = torch.from_numpy(log_mel[:_LONGEST_FRAMES].T.copy())[None, None]
            everywhere = whole.new_ones(1, 1, 1, whole.shape[3])
            features = self.network.front_end.normalise(whole, everywhere)
            rows.append(self.network.pool(whole, features, None))
        return torch.cat(rows)

    def _source_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        full = self.config.full
        drawn = BalancedSampler(self.audio.utterances).draw(full.steps * full.batch, self.rng)
        return self._crops(self.audio.features, drawn, full.batch)

    def _target_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        full = self.config.full
        size = min(full.batch, len(self.clips))
        rounds = -(-full.steps * size // len(self.clips))
        orders = [self.rng.permutation(len(self.clips)) for _ in range(rounds)]
        return self._crops(self.clips, np.concatenate(orders)[: full.steps * size], size)

    def _crops(
        self, features: Ragged, drawn: NDArray[np.int64], size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return training_batches([features], drawn, self.recipe.augment, size, self.rng)
