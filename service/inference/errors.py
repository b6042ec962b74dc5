"""One family of errors: one sentence each; service/api/problems.py has their status codes."""


class NnpmError(Exception):
    """Base of every error whose message is meant for the user."""


class AudioError(NnpmError):
    """Base of everything that is wrong with one recording."""


class NotAudioError(AudioError):
    """The bytes are not audio that we read."""


class DamagedAudioError(AudioError):
    """Audio of a known format that breaks off, or whose samples are not numbers."""


class CostlyAudioError(AudioError):
    """Audio whose decoding takes more time or reading than audio of its length should."""


class AudioTooShortError(AudioError):
    """Fewer samples than the shortest clip that can be scored; empty audio included."""


class AudioTooLongError(AudioError):
    """More seconds of audio than the limit."""


class NoRoomError(NnpmError):
    """What was sent cannot be kept: the disk is full, or refuses."""


class ParameterError(NnpmError):
    """A parameter outside its range."""


class BundleError(NnpmError):
    """A bundle that is missing, damaged or not ours."""
