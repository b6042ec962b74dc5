"""The error of everything that reads a corpus."""

from service.inference.errors import NnpmError


class CorpusError(NnpmError, ValueError):
    """A corpus that is missing, incomplete or not laid out as published.

    The message is one sentence: what was seen, what was wanted, what to do. The command line
    prints it and exits with 2.
    """
