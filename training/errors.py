"""The error of training, export, evaluation, adaptation and the benchmark."""

from ..service.inference.errors import NnpmError


class TrainingError(NnpmError):
    """A command that cannot start or go on.

    The message is one sentence: what was found, what is required, what to do. The command line
    prints it and exits with 2.
    """
