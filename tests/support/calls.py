"""Two-party calls built from clips, with the true turns beside them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to the voices on their way.

    Attributes:
        pause_s: shortest and longest silence between two turns.
        overlap: share of turns that begin before the other speaker has ended.
        noise_db: level of steady noise on each channel, in dB of full scale; None is digital
            silence.
        echo_db: gain of the other channel's voice in each channel, 80 ms later; None has none.
        mp3: whether the call goes through an MP3 file.
        comfort: whether a channel has its noise only while it is silent.
        far_db: gain of the second voice.
        hum_db: level of a hum of 50 Hz and its overtones; None has none.
        offset: constant that is added to all samples.
        gain_db: of the whole call, which is clipped then.
    """

    pause_s: tuple[float, float] = (0.2, 1.2)
    overlap: float = 0.0
    noise_db: float | None = None
    echo_db: float | None = None
    mp3: bool = False
    comfort: bool = False
    far_db: float = 0.0
    hum_db: float | None = None
    offset: float = 0.0
    gain_db: float = 0.0


@dataclass(frozen=True, slots=True)
class TrueTurn:
    """One clip in a call.

    Attributes:
        start_s: seconds from the start of the call.
        end_s: seconds from the start of the call.
        channel: 0 or 1.
        clip: index of the clip.
    """

    start_s: float
    end_s: float
    channel: int
    clip: int

    @property
    def middle_s(self) -> float:
        """Half way, in seconds from the start of the call."""
        return (self.start_s + self.end_s) / 2


def two_party_call(
    clips: Sequence[Samples],
    rate: int = 16_000,
    line: Line = Line(),
    seed: int = 0,
) -> tuple[Samples, list[TrueTurn]]:
    """Two people in turn, each on a channel of their own.

    Now and then one of them says two clips in a row.

    Args:
        clips: shape ``(num_samples,)`` at ``rate``, one per turn, in order.
        rate: in Hz.
        line: pauses, overlaps, noise, echo and codec.
        seed: of all that is drawn.

    Returns:
        Samples of shape ``(num_frames, 2)``, and one turn per clip.

    Examples:
        >>> call, turns = two_party_call([np.ones(8_000), np.ones(16_000)], rate=8_000)
        >>> call.shape[1], [turn.channel for turn in turns]
        (2, [0, 1])
        >>> round(turns[1].end_s - turns[1].start_s, 3)
        2.0
    """
    rng = np.random.default_rng(seed)
    turns: list[TrueTurn] = []
    at, channel = round(rate * rng.uniform(0.3, 1.0)), 0
    free = [0, 0]  # where each channel is silent from
    for index, clip in enumerate(clips):
        if index and rng.random() < 0.85:
            channel = 1 - channel
        step_s = rng.uniform(*line.pause_s)
        if rng.random() < line.overlap:
            step_s = -min(rng.uniform(0.1, 1.0), len(clip) / rate / 2)
        start = max(at + round(step_s * rate), free[channel] + round(0.4 * rate))
        end = start + len(clip)
        turns.append(TrueTurn(start / rate, end / rate, channel, index))
        at, free[channel] = max(at, end), end
    call = np.zeros((at + rate, 2))
    for turn in turns:
        start = round(turn.start_s * rate)
        clip = clips[turn.clip]
        gain = 10 ** (line.far_db * turn.channel / 20)
        call[start : start + len(clip), turn.channel] += gain * clip
    if line.echo_db is not None:
        delay = round(0.08 * rate)
        call[delay:] += 10 ** (line.echo_db / 20) * call[:-delay, ::-1]
    if line.noise_db is not None:
        noise = 10 ** (line.noise_db / 20) * rng.standard_normal(call.shape)
        for turn in turns if line.comfort else ():
            noise[round(turn.start_s * rate) : round(turn.end_s * rate), turn.channel] = 0
        call += noise
    if line.hum_db is not None:
        hum = np.sin(2 * np.pi * np.outer(np.arange(len(call)) / rate, [50, 150, 250]))
        call += 10 ** (line.hum_db / 20) * (hum @ [[1.0], [0.5], [0.2]])
    call = np.clip(10 ** (line.gain_db / 20) * call + line.offset, -1, 1)
    return (_through_mp3(call, rate) if line.mp3 else call), turns


def _through_mp3(call: Samples, rate: int) -> Samples:
    file = io.BytesIO()
    soundfile.write(file, call, rate, format="MP3")
    file.seek(0)
    decoded, _ = soundfile.read(file)
    found: Samples = decoded
    return found
