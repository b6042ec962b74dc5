"""States of the encoder's frozen part: computed once per copy of a clip, kept in the run's folder.

A step then reads crops of them instead of decoding, varying and encoding waveforms. Which copies
are ever drawn follows from the seed, so that no others are computed.
"""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ..config import Config
from ..data.augment import Augmentation
from ..data.batches import Batch, BatchSampler, cut, pad
from ..data.clips import Ragged, cached
from ..errors import TrainingError

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Waveforms and lengths to states and their mask, without a gradient."""

_TRIAL_S = 10
_LARGEST = float(np.finfo(np.float16).max)
_LEAST_FREE = 1 << 30  # for checkpoints and logs


class KeptBatches:
    """Batches of crops of kept states; which clips a step has is as without them.

    The n-th draw of a clip takes its n-th copy, and after the last the first again.

    Args:
        sampler: chooses the clips of a step, and varies their copies.
        encode: the encoder's frozen part.
        config: the recipe.
        run: folder of the run.
        known: digest of what the states depend on, in hexadecimal.

    Raises:
        TrainingError: if the states would be larger than allowed, or than the disk has room for.
    """

    def __init__(
        self, sampler: BatchSampler, encode: Encode, config: Config, run: Path, known: str
    ) -> None:
        self.sampler, self.config, self.encode = sampler, config, encode
        self.rows: dict[tuple[int, int], int] = {}  # of a clip and the number of its copy
        self.steps: list[list[int]] = []
        drawn: dict[int, int] = {}
        for step in range(config.train.steps):
            taken = []
            for index in sampler.choose(step)[0]:
                copy = drawn.get(index, 0) % config.frozen.copies
                drawn[index] = drawn.get(index, 0) + 1
                taken.append(self.rows.setdefault((index, copy), len(self.rows)))
            self.steps.append(taken)
        trial = torch.zeros(1, _TRIAL_S * SAMPLE_RATE_HZ)
        states, _ = encode(trial, torch.tensor([trial.shape[1]]))
        self.frames_per_s = states.shape[1] / _TRIAL_S
        stem = run / f"states-{hashlib.sha256(known.encode()).hexdigest()[:16]}"
        forget(run, but=stem.name)
        if not stem.with_suffix(".npy").exists():
            self._announce(run, states.shape[2])
        self.states: Ragged = cached(stem, self._compute)

    def draw(self, step: int) -> Batch:
        """The batch of a step; the same step gives the same batch."""
        index, rng = self.sampler.choose(step)
        augment, crops = self.config.augment, []
        for row in self.steps[step]:
            seconds = rng.uniform(augment.shortest_s, augment.longest_s)
            length = max(1, round(seconds * self.frames_per_s))
            crops.append(cut(self.states[row], length, rng))
        return Batch(*pad(crops), torch.tensor(index))

    def _announce(self, run: Path, width: int) -> None:
        """Say how large the states will be, and how long they will take."""
        frozen, copies = self.config.frozen, len(self.rows)
        longest_s = self.config.augment.longest_s
        if self.config.augment.change:
            longest_s *= Augmentation().resample[1]
        most = copies * (round(longest_s * self.frames_per_s) + 1) * width * 2
        free = shutil.disk_usage(run).free - _LEAST_FREE
        for allowed, why, remedy in (
            (round(frozen.largest_gib * (1 << 30)), "frozen.largest_gib allows", "raise it"),
            (free, "the disk has room for", "make room"),
        ):
            if most > allowed:
                raise TrainingError(
                    f"the states of {copies:,} copies may take {_gib(most)} in {run}; {why} "
                    f"{_gib(max(0, allowed))}: lower frozen.copies (0 keeps nothing) or "
                    f"train.steps, or {remedy}"
                )
        few = list(self.rows)[:4]
        started = time.perf_counter()
        self._encode(few)
        minutes = (time.perf_counter() - started) / len(few) * copies / 60.0
        draws = sum(len(step) for step in self.steps)
        tqdm.write(
            f"about {max(1.0, minutes):.0f} min for states that are kept: {copies:,} copies of "
            f"clips for {draws:,} draws, at most {_gib(most)} in {run}",
            file=sys.stderr,
        )

    def _compute(self) -> Iterator[NDArray[np.float32]]:
        chosen, size = list(self.rows), self.config.train.batch_size
        parts = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._vary, parts[0])
            # disable=None: no bar if standard error is a file or a pipe
            for number in tqdm(range(len(parts)), desc="keep", unit="batch", disable=None):
                clips = ahead.result()
                if number + 1 < len(parts):
                    ahead = pool.submit(self._vary, parts[number + 1])
                torch.manual_seed(self.sampler.seed * 1_000_003 + number)
                yield from self._states(clips)

    def _encode(self, chosen: list[tuple[int, int]]) -> None:
        for _ in self._states(self._vary(chosen)):
            pass

    def _vary(self, chosen: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        return pad([self.sampler.copy(index, number) for index, number in chosen])

    def _states(self, clips: tuple[Tensor, Tensor]) -> Iterator[NDArray[np.float32]]:
        states, mask = self.encode(*clips)
        for row, inside in zip(states.float().cpu(), mask.cpu(), strict=True):
            yield row[inside].clamp(-_LARGEST, _LARGEST).numpy()


def forget(run: Path, but: str = "") -> None:
    """Remove kept states: of another recipe, or of a run that has finished.

    Args:
        run: its folder.
        but: stem of those to leave.
    """
    for path in run.glob("states-*.npy"):
        if not but or path.name.partition(".")[0] != but:
            path.unlink(missing_ok=True)
    for path in run.glob(".states-*.tmp"):  # a killed process could not remove it
        path.unlink(missing_ok=True)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"
