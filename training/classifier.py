"""The head: what lies between the pooled feature and the logits; adaptation trains only this."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from training.config import HeadConfig


class Head(nn.Module):
    """Normalise, project to the unit sphere, and classify by cosine.

    The batch normalisation at the entrance is the place where a target's own statistics go.

    Args:
        config: width of the projection, dropout, first logit scale.
        channels: width of the pooled feature.
        num_emotions: logits.

    Examples:
        >>> head = Head(HeadConfig(), channels=256, num_emotions=4).eval()
        >>> logits, projection = head(torch.randn(3, 256))
        >>> logits.shape, projection.shape
        (torch.Size([3, 4]), torch.Size([3, 128]))
        >>> bool(torch.allclose(projection.norm(dim=1), torch.ones(3)))
        True
    """

    def __init__(self, config: HeadConfig, channels: int, num_emotions: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(channels, config.projection)
        self.classes = nn.Parameter(torch.empty(num_emotions, config.projection))
        nn.init.kaiming_uniform_(self.classes, a=5**0.5)
        self.scale = nn.Parameter(torch.tensor(config.logit_scale).log())

    def project(self, pooled: Tensor) -> Tensor:
        """Pooled features ``(batch, channels)`` to z on the unit sphere ``(batch, projection)``."""
        return F.normalize(self.projection(self.dropout(self.norm(pooled))), dim=1)

    def classify(self, projection: Tensor) -> Tensor:
        """Logits ``(batch, num_emotions)`` of z."""
        return self.scale.exp() * projection @ F.normalize(self.classes, dim=1).T

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and z."""
        projection = self.project(pooled)
        return self.classify(projection), projection
