"""What decoding one file may cost, in proportion to the audio that comes of it."""

import time

from service.inference.errors import CostlyAudioError

GRACE_S = 10.0
"""CPU seconds that any file may take."""

PER_AUDIO_S = 0.1
"""CPU seconds more for each second of audio. The dearest that we know, eight channels of Opus or of
384 kHz, took 0.024 on one core of a server."""

BYTES_WITHOUT_AUDIO = 64 << 20
"""Bytes read at most before the first samples, and from some samples to the next."""


class Allowance:
    """Counts what one file costs while it is decoded on one thread.

    Length, channels and rate bound what a file may *hold*. This bounds what is spent on a file that
    holds little: headers of a million pieces, tags of hundreds of megabytes that a library keeps.
    """

    def __init__(self) -> None:
        self._started_s = time.thread_time()
        self._audio_s = 0.0
        self._bytes = 0
        self._overdrawn: CostlyAudioError | None = None

    def read(self, num_bytes: int) -> bool:
        """Count bytes before they are read; whether they may be."""
        self._bytes += num_bytes
        if self._overdrawn is None:
            self._overdrawn = self._judge()
        return self._overdrawn is None

    def gain(self, audio_s: float) -> None:
        """Count seconds of audio that came of what was read."""
        self._audio_s += audio_s
        self._bytes = 0

    def check(self) -> None:
        """See whether all is paid for.

        Raises:
            CostlyAudioError: if it is not.
        """
        if not self.read(0):
            assert self._overdrawn is not None
            raise self._overdrawn

    def _judge(self) -> CostlyAudioError | None:
        spent_s = time.thread_time() - self._started_s
        if self._bytes > BYTES_WITHOUT_AUDIO:
            return CostlyAudioError(
                f"More than {BYTES_WITHOUT_AUDIO} bytes without a sample, after "
                f"{self._audio_s:.1f} s of audio; export it again, without tags."
            )
        if spent_s > GRACE_S + PER_AUDIO_S * self._audio_s:
            return CostlyAudioError(
                f"Decoding took {spent_s:.1f} s for {self._audio_s:.1f} s of audio; at most "
                f"{GRACE_S:g} s and {PER_AUDIO_S:g} s for each second of audio are spent: export "
                "it again."
            )
        return None
