"""Gradients of autograd against those of torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from autograd import grad


def assert_gradients_agree(
    ours: Callable[..., Any], theirs: Callable[..., torch.Tensor], *arguments: np.ndarray
) -> None:
    """Both functions have the same value and gradients at float64 ``arguments``."""
    tensors = [torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in arguments]
    value = theirs(*tensors)
    value.backward()
    arrays = [a.astype(np.float64) for a in arguments]
    np.testing.assert_allclose(ours(*arrays), value.item(), rtol=1e-6)
    for index, tensor in enumerate(tensors):
        found = grad(ours, index)(*arrays)
        np.testing.assert_allclose(found, tensor.grad.numpy(), rtol=1e-5, atol=1e-9)
