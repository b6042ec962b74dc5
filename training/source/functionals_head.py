"""The second stage of training: a head on the functionals, joined to the head of the encoder."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import trange

from ...service.inference.card import CORE_EMOTIONS
from ..config import Config
from ..corpora import Utterance
from ..data.augment import SpectralAugment, mixup
from ..data.batches import BalancedSampler
from ..data.clips import Ragged
from ..network.encoders.functionals import Functionals
from ..network.head import Head, join
from ..network.memory import smooth_one_hot, soft_cross_entropy
from ..network.network import Network
from .trainer import warm_cosine

_CLIPS_AT_ONCE = 64
_LONGEST_FRAMES = 625  # ten seconds at the default front end, as in embed()


def add_functionals(
    network: Network,
    config: Config,
    utterances: Sequence[Utterance],
    versions: Sequence[Ragged],
    seed: int,
) -> Network:
    """Fit a head on the functionals of the training clips, and join it to a trained network's.

    The head is trained with the losses of ``config.loss`` except the multilabel loss. Every clip of
    a batch is drawn as recorded, as a waveform variant, or as a spectral augmentation of either;
    the functionals of all of them are computed once, at the start.

    Args:
        network: trained, without functionals, on the CPU.
        config: the recipe.
        utterances: the training side.
        versions: log-mel of their clips as recorded, then of their variants.
        seed: of all draws; torch's global generator is left as it was.

    Returns:
        The network of the recipe, in evaluation mode; ``network`` itself if the recipe has no
        functionals. The result is the same for the same seed and number of threads.
    """
    if not config.functionals.enabled:
        return network.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        whole = Network(config, network.labels)
        assert whole.functionals is not None
        features_by_version = _compute_versions(whole.functionals, config, versions)
        head = _fit(features_by_version, config, network.labels, utterances, seed)
        whole.encoder = network.encoder
        whole.head = join(config.head, [network.head, head])
    return whole.eval()


def _fit(
    features_by_version: Tensor,
    config: Config,
    labels: tuple[str, ...],
    utterances: Sequence[Utterance],
    seed: int,
) -> Head:
    """Train a head on functionals, shape ``(versions, clips, width)``."""
    section = config.functionals
    head = Head(config.head, [features_by_version.shape[2]], len(labels)).train()
    head.norm.requires_grad_(False)  # its affine part stays the identity
    optimizer = torch.optim.AdamW(
        [weight for weight in head.parameters() if weight.requires_grad],
        lr=section.learning_rate,
        weight_decay=section.weight_decay,
    )
    rise = partial(warm_cosine, total=section.steps, warmup=section.warmup * section.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rise)
    emotion = torch.tensor([labels.index(u.emotion) for u in utterances])
    core = [labels.index(name) for name in CORE_EMOTIONS if name in labels]
    sampler, rng = BalancedSampler(utterances), np.random.default_rng(seed)
    for _ in trange(
        section.steps, desc="functionals", unit="step", dynamic_ncols=True, disable=None
    ):
        clips = torch.from_numpy(sampler.draw(section.batch_size, rng))
        features = features_by_version[torch.randint(len(features_by_version), clips.shape), clips]
        target = smooth_one_hot(emotion[clips], len(labels), config.loss.label_smoothing)
        if torch.rand(()) < section.mixup_p:
            features, target = mixup(features, target, section.mixup_alpha)
        logits, _ = head(features)
        loss = soft_cross_entropy(logits, target).mean()
        if core:
            core_loss = soft_cross_entropy(logits[:, core], target[:, core]).mean()
            loss = loss + config.loss.core_weight * core_loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return head.eval()


def _compute_versions(
    functionals: Functionals, config: Config, versions: Sequence[Ragged]
) -> Tensor:
    """Functionals of all versions of all clips and of their views, ``(versions, clips, width)``."""
    augment = SpectralAugment(config.augment, config.front_end)
    rows = []
    for place, version in enumerate(versions):
        rows.append(_compute(functionals, version, None))
        views = config.functionals.views if place == 0 else 1
        rows += [_compute(functionals, version, augment) for _ in range(views)]
    return torch.stack(rows)


@torch.no_grad()
def _compute(functionals: Functionals, version: Ragged, augment: SpectralAugment | None) -> Tensor:
    """Functionals of all clips, shape ``(clips, width)``, computed in batches of similar length."""
    order = np.argsort(version.ends - version.starts, kind="stable")
    found = torch.empty(len(order), functionals.width)
    for places, log_mel, mask in _padded(version, order):
        varied = log_mel if augment is None else augment(log_mel)
        found[torch.from_numpy(places)] = functionals(varied, mask)
    return found


def _padded(
    version: Ragged, order: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Yield batches: indices of clips, log-mel power padded by its mirror image, and masks.

    With this padding a clip is augmented as it would be alone: :class:`SpectralAugment` also
    mirrors what lies past the end of a clip, and its maximum and minimum are those of the clip.
    """
    for places in (order[i : i + _CLIPS_AT_ONCE] for i in range(0, len(order), _CLIPS_AT_ONCE)):
        rows = [version[int(place)][:_LONGEST_FRAMES] for place in places]
        longest = max(len(row) for row in rows)
        log_mel = torch.zeros(len(rows), 1, rows[0].shape[1], longest)
        mask = torch.zeros(len(rows), 1, 1, longest)
        for index, row in enumerate(rows):
            mirrored = np.pad(row, ((0, longest - len(row)), (0, 0)), mode="symmetric")
            log_mel[index, 0] = torch.from_numpy(mirrored.T)
            mask[index, ..., : len(row)] = 1.0
        yield places, log_mel, mask
