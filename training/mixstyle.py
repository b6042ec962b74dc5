"""MixStyle: new recording conditions from the statistics of other clips in the batch."""

import torch
from torch import Tensor, nn


class MixStyle(nn.Module):
    """Exchange part of each clip's channel statistics with another clip's, while training.

    References:
        Zhou et al., *Domain Generalization with MixStyle*, ICLR 2021, arXiv 2104.02008. Ours takes
        them per channel over bands and time.

    Args:
        p: probability that a batch is mixed.
        alpha: of the Beta distribution of the share kept.
    """

    def __init__(self, p: float, alpha: float) -> None:
        super().__init__()
        self.p = p
        self.alpha = alpha

    def forward(self, features: Tensor) -> Tensor:
        """Mix ``(batch, channels, bands, frames)`` without padding; evaluation changes nothing."""
        if not self.training or torch.rand(()) >= self.p:
            return features
        variance, mean = torch.var_mean(features.detach(), (2, 3), correction=0, keepdim=True)
        deviation = variance.clamp(min=1e-5).sqrt()
        batch = features.shape[0]
        share = torch.distributions.Beta(self.alpha, self.alpha).sample((batch, 1, 1, 1))
        share = share.to(features.device, features.dtype)
        other = torch.randperm(batch, device=features.device)
        mixed_mean = share * mean + (1 - share) * mean[other]
        mixed_deviation = share * deviation + (1 - share) * deviation[other]
        # one multiplication and one addition per value
        gain = mixed_deviation / deviation
        return torch.addcmul(mixed_mean - mean * gain, features, gain)
