"""``nnpm adapt --full``: fine-tune the whole network with the audio of source and target."""

from collections.abc import Callable

from ...service.inference.bundle import Bundle
from ...service.jobs.folder import AdaptationTask
from ..errors import TrainingError
from .config import AdaptConfig
from .head import Full, Start


def fine_tune(
    base: Bundle,
    task: AdaptationTask,  # noqa: ARG001
    config: AdaptConfig,  # noqa: ARG001
    full: Full,  # noqa: ARG001
    on_step: Callable[[int, int], None],  # noqa: ARG001
) -> Start:
    """Train encoder and head, and build the memory again with the new encoder.

    Args:
        base: the bundle that is adapted.
        task: gives target, method and seed.
        config: the section ``full``, and the method's section.
        full: the source's audio.
        on_step: called after every step with the steps taken and the steps in all.

    Returns:
        Head with the source's statistics, memory and encoder part of the fine-tuned network.

    Raises:
        TrainingError: if the network of the base cannot be trained.
    """
    raise TrainingError(
        f"the network of {base.path} cannot be fine-tuned; leave --full out to adapt its head"
    )
