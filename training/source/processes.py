"""Training in several processes, as ``torchrun`` starts them: on one machine or many.

They draw the batches in turn, and each encodes its share of the rows; the pooled features of all
are gathered, so that head, losses, statistics and memory are those of the whole batch, and
gradients are averaged.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from ...service.command import EXIT_BAD_INPUT
from ..data.batches import Batch
from ..errors import TrainingError

_LONGEST_WAIT = timedelta(hours=12)
"""For a machine that still decodes its corpora; a process that ends is noticed at once."""

_MEETING = timedelta(minutes=10)

_SILENT_S = 5.0
"""How long a process that has nothing to add waits for torchrun to end it: if it ended first,
torchrun would end the one that is about to say what is wrong."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Those that train one network together; by default this one alone.

    Attributes:
        rank: of this process, among all.
        count: of processes.
        place: of this process, among those of its machine.
        again: whether torchrun has started them again after one failed.
    """

    rank: int = 0
    count: int = 1
    place: int = 0
    again: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    @contextmanager
    def one_at_first(self) -> Iterator[None]:
        """Let one process of each machine through the block first, to fill its caches."""
        if self.place > 0:
            self._wait()
        yield
        if self.place == 0:
            self._wait()

    def _wait(self) -> None:
        if self.count > 1:
            with _talking():
                distributed.barrier()

    def share(self, data: bytes | None) -> bytes | None:
        """Give all processes what the first one has; others' ``data`` is ignored."""
        if self.count == 1:
            return data
        with _talking():
            size = torch.tensor([-1 if data is None else len(data)])
            distributed.broadcast(size, 0)
            if size < 0:
                return None
            content = torch.empty(int(size), dtype=torch.uint8)
            if self.first and data:
                content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            distributed.broadcast(content, 0)
        return content.numpy().tobytes()

    def require_same(self, digest: str) -> None:
        """Check that all processes have what the first one has, before any goes on.

        Args:
            digest: of all that the network depends on.

        Raises:
            TrainingError: if this one has something else.
        """
        if self.share(digest.encode()) != digest.encode():
            raise TrainingError(
                f"process {self.rank} of {self.count} has another nnpm, or other corpora, options "
                "or encoder weights than process 0: give all machines the same files and command"
            )
        self._wait()

    def deal(self, batch: Batch | None, owner: int) -> Batch:
        """Give each process the rows that it encodes, as many as each other one.

        Args:
            batch: in the process that has drawn it; others' is ignored.
            owner: rank of that process.

        Returns:
            Waveforms and lengths of this process's rows, and the index of all rows.
        """
        if self.count == 1:
            assert batch is not None
            return batch
        with _talking():
            # rows, samples of each
            shape = torch.zeros(2, dtype=torch.int64)
            if batch is not None:
                shape = torch.tensor(batch.waveform.shape)
            distributed.broadcast(shape, owner)
            rows, samples = shape.tolist()
            if batch is None:
                lengths, index = torch.zeros(2, rows, dtype=torch.int64)
            else:
                lengths, index = batch.lengths, batch.index
            distributed.broadcast(lengths, owner)
            distributed.broadcast(index, owner)
            shares = [shared(rows, rank, self.count) for rank in range(self.count)]
            waveform = torch.empty(len(shares[0]), samples)
            dealt = None if batch is None else [batch.waveform[share] for share in shares]
            distributed.scatter(waveform, dealt, owner)
        return Batch(waveform, lengths[shares[self.rank]], index)

    def gather(self, own: Tensor, rows: int) -> Tensor:
        """Join the features of all processes; their gradient goes back to where they were made.

        Args:
            own: of this process's rows, shape ``(own rows, width)``.
            rows: of the batch.

        Returns:
            Shape ``(rows, width)``, the same in all processes.
        """
        if self.count == 1:
            return own
        joined: Tensor = _Gather.apply(own, rows, self)  # type: ignore[no-untyped-call]
        return joined

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes."""
        if self.count == 1:
            return
        trained = list(parameters)
        with _talking():
            # an encoder may leave out layers at random, others in each process
            there = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
            distributed.all_reduce(there, distributed.ReduceOp.MAX)
            gradients = [
                torch.zeros_like(p) if p.grad is None else p.grad
                for p, anywhere in zip(trained, there.tolist(), strict=True)
                if anywhere
            ]
            mean = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(mean)
        mean /= self.count
        parts = iter(torch.split(mean, [gradient.numel() for gradient in gradients]))
        for p, anywhere in zip(trained, there.tolist(), strict=True):
            if anywhere:
                p.grad = next(parts).view_as(p)


ALONE = Processes()


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards each gets its own, times their number.

    The loss is the same in all processes, so that the mean of their gradients is that of the whole
    batch: of the head every process has it, of the encoder each has the part of its own rows.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: int, processes: Processes) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(processes.count)]
        with _talking():
            distributed.all_gather(parts, own.contiguous())
        ctx.own, ctx.processes = len(own), processes
        return torch.cat(parts)[:rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), processes = gradients, ctx.processes
        own = gradient.new_zeros(ctx.own, gradient.shape[1])
        mine = gradient[processes.rank * ctx.own : (processes.rank + 1) * ctx.own]
        own[: len(mine)] = mine
        return own * processes.count, None, None


def shared(rows: int, rank: int, count: int) -> Tensor:
    """Which rows a process encodes; where they do not divide evenly, the last one fills up.

    Examples:
        >>> [shared(5, rank, 2).tolist() for rank in (0, 1)]
        [[0, 1, 2], [3, 4, 4]]
    """
    most = -(-rows // count)
    return torch.arange(rank * most, (rank + 1) * most).clamp(max=rows - 1)


@contextmanager
def joined(
    choose: Callable[[], torch.device],
) -> Iterator[tuple[Processes, torch.device]]:
    """Join the other processes of ``torchrun``, and leave them when the block ends.

    An error in one ends all, and one of them says it. Without torchrun nothing happens.

    Args:
        choose: gives the device of a process that is alone.

    Raises:
        TrainingError: if the device does not fit, or another process is gone.
    """
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        yield ALONE, choose()
        return
    store, rank, count = next(rendezvous("env://", timeout=_LONGEST_WAIT))
    found = Processes(
        rank,
        count,
        int(os.environ["LOCAL_RANK"]),
        os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0",
    )
    if not found.first:  # the first one's are the same
        logging.getLogger(__name__.rpartition(".source")[0]).setLevel(logging.ERROR)
    try:
        device = _own_device(choose(), found)
        kind = device.type
        _meet(store, found)
        if found.first:
            store.set("device", kind)
        elif (others := store.get("device").decode()) != kind:
            raise TrainingError(
                f"process {rank} of {count} would train on {kind}, process 0 on {others}: name "
                "one that all machines have with --device"
            )
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=_LONGEST_WAIT,
        )
        yield found, device
        distributed.destroy_process_group()
    except (Exception, KeyboardInterrupt):
        if _speaks(store, found):
            raise
        time.sleep(_SILENT_S)
        raise SystemExit(EXIT_BAD_INPUT) from None


def _meet(store: Any, processes: Processes) -> None:
    """Wait until all processes have come.

    Raises:
        TrainingError: if one has not come within ten minutes.
    """
    store.set(f"here {processes.rank}", "")
    for rank in range(processes.count):
        try:
            store.wait([f"here {rank}"], _MEETING)
        except RuntimeError:
            raise TrainingError(
                f"process {rank} of {processes.count} did not come within "
                f"{_MEETING.seconds // 60} minutes: see what its machine says"
            ) from None


def _own_device(device: torch.device, processes: Processes) -> torch.device:
    """The device of one process of several.

    Raises:
        TrainingError: if there are more processes than GPUs, or processes cannot share such.
    """
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(
            f"several processes cannot train together on {device.type}; add --device cpu"
        )
    if device.type == "cuda":
        there = torch.cuda.device_count()
        if processes.place >= there:
            raise TrainingError(
                f"this machine has {there} GPUs, and torchrun starts more processes on it: "
                f"--nproc-per-node {there}"
            )
        device = torch.device("cuda", processes.place)
        torch.cuda.set_device(device)
    return device


def _speaks(store: Any, processes: Processes) -> bool:
    """Whether this process is the first to fail, and so the one that says why."""
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the machine with the store is gone
        return processes.place == 0


@contextmanager
def _talking() -> Iterator[None]:
    """Tell in a sentence that another process is gone.

    Raises:
        TrainingError: if it is.
    """
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of this training is gone: it was killed, or its machine or network "
            "failed; --resume continues the run"
        ) from error
