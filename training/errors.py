"""Errors of the training package; the command line prints them and exits with 2."""

from service.inference.errors import NnpmError


class TrainingError(NnpmError):
    """A run that cannot start or go on; the message says why and what to do."""
