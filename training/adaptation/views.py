"""One clip as recorded and in several spectral augmentations, through the frozen encoder."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augment import SpectralAugment
from training.frontend import FrontEnd
from training.network import Network


@torch.no_grad()
def whole_log_mel(front_end: FrontEnd, samples: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Log-mel power of one clip, ``(1, 1, n_mels, num_frames)``, and its mask, which is all ones.

    A clip shorter than one window of the analysis is padded to it.
    """
    shortest = front_end.config.win_length
    waveform = torch.from_numpy(np.pad(samples, (0, max(0, shortest - len(samples)))))
    return front_end.log_mel(waveform[None], torch.tensor([len(samples)]))


class Listener:
    """Pools clips, each as recorded and in views.

    The recording and its views are one batch of full clips of one length: nothing is padded, and
    the features as recorded are those of the service.

    A view's functionals are of its power; the masks are for the encoder alone.

    Calls may come from many threads: the draws of a clip depend on its samples and the seed alone.

    Args:
        network: of the bundle; the augmentation is that of its source training.
        num_views: per clip.
        seed: of the views.

    Examples:
        >>> from training.config import Config
        >>> network = Network(Config(), ("angry", "sad")).eval()
        >>> Listener(network, num_views=3, seed=0)(np.zeros(16_000, np.float32)).shape
        torch.Size([4, 661])
    """

    def __init__(self, network: Network, num_views: int, seed: int) -> None:
        self.network, self.num_views, self.seed = network, num_views, seed

    @torch.no_grad()
    def __call__(self, samples: NDArray[np.float32]) -> Tensor:
        """Pool one clip.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``.

        Returns:
            Shape ``(1 + num_views, D)``; the first row is the clip as recorded.
        """
        front_end = self.network.front_end
        recorded, mask = whole_log_mel(front_end, samples)
        power, features = [recorded], [front_end.normalise(recorded, mask)]
        if self.num_views:
            everywhere = mask.expand(self.num_views, -1, -1, -1)
            augment = self._augmentation(samples)
            varied = augment(recorded.expand(self.num_views, -1, -1, -1))
            power.append(varied)
            features.append(augment.mask(front_end.normalise(varied, everywhere)))
        return self.network.pool(torch.cat(power), torch.cat(features), None)

    def _augmentation(self, samples: NDArray[np.float32]) -> SpectralAugment:
        digest = hashlib.sha256(self.seed.to_bytes(8) + samples.tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
        config = self.network.config
        return SpectralAugment(config.augment, config.front_end, generator)
