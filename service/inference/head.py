"""The head of a bundle: from the pooled feature to the projection and the logits, in numpy."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .errors import BundleError

Floats = NDArray[np.float32]

_LEAST_LENGTH = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Standardise, project to the unit sphere, classify by cosine.

    ``x = (h - mean) / deviation``, ``z = normalise(weight x + bias)``,
    ``logits = scale * z @ classes.T``. The statistics are where a target's own go in; projection
    and classes are what adaptation trains.

    Attributes:
        mean: of the pooled feature, shape ``(D,)``.
        deviation: of the pooled feature, above 0, shape ``(D,)``.
        weight: of the projection, shape ``(width, D)``.
        bias: of the projection, shape ``(width,)``.
        classes: unit rows, shape ``(num_emotions, width)``.
        scale: of the cosines.

    Examples:
        >>> ones = np.ones(3, np.float32)
        >>> eye = np.eye(3, dtype=np.float32)
        >>> head = Head(ones, ones, eye, 0 * ones, eye[:2], np.float32(10.0))
        >>> x = head.standardise(np.array([[1.0, 3.0, 1.0]], np.float32))
        >>> z = head.project(x)
        >>> z.tolist(), head.classify(z).tolist()
        ([[0.0, 1.0, 0.0]], [[0.0, 10.0]])
    """

    mean: Floats
    deviation: Floats
    weight: Floats
    bias: Floats
    classes: Floats
    scale: np.float32

    def standardise(self, embedding: Floats) -> Floats:
        """Pooled features h ``(n, D)`` to standardised ones x of the same shape."""
        standard: Floats = (embedding - self.mean) / self.deviation
        return standard

    def project(self, standard: Floats) -> Floats:
        """Standardised features x ``(n, D)`` to z on the unit sphere ``(n, width)``."""
        projected = standard @ self.weight.T + self.bias
        length = np.linalg.norm(projected, axis=1, keepdims=True)
        unit: Floats = projected / np.maximum(length, np.float32(_LEAST_LENGTH))
        return unit

    def classify(self, projection: Floats) -> Floats:
        """Unit features z ``(n, width)`` to logits ``(n, num_emotions)``."""
        logits: Floats = self.scale * (projection @ self.classes.T)
        return logits

    def to_bytes(self) -> bytes:
        """The contents of ``head.safetensors``: float32, one tensor per attribute."""
        return save({f.name: np.asarray(getattr(self, f.name), np.float32) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read ``head.safetensors``.

        Raises:
            BundleError: if a tensor is missing, of another shape, or not finite.
        """
        try:
            tensors = load(data)
            arrays = {f.name: tensors[f.name].astype(np.float32) for f in fields(cls)}
            head = cls(**arrays)  # type: ignore[arg-type] # an array without axes is a number, too
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BundleError("head.safetensors cannot be read.") from error
        head._check()
        return head

    def _check(self) -> None:
        width, num_features = self.weight.shape if self.weight.ndim == 2 else (0, 0)
        expected = {
            "mean": (num_features,),
            "deviation": (num_features,),
            "bias": (width,),
            "classes": (len(self.classes) if self.classes.ndim else 0, width),
            "scale": (),
        }
        for name, shape in expected.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise BundleError(
                    f"head.safetensors holds {name} of shape {found}; it must be {shape}."
                )
        for field in fields(self):
            if not np.isfinite(getattr(self, field.name)).all():
                raise BundleError(f"head.safetensors holds {field.name} that is not finite.")
        if not (self.deviation > 0).all():
            raise BundleError("head.safetensors holds a deviation that is not above 0.")
