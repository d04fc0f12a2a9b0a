"""The ranks of one training: processes that divide each optimizer step, over MLX's ring
or JACCL.

Each rank computes the gradient of its rows, and one sum over all ranks makes the step's gradient:
a single vector of all gradients, the loss, the counts and some checks. Every rank then applies the
same update. Rank 0 decides what comes next and writes all files. The others follow it until they
are dismissed: a step to which any rank came with `leave` set is dropped by all.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from safetrain_shared.errors import Broken, Incompatible
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.heartbeat import Heartbeat
from safetraind.worker.training.outcome import is_out_of_memory

Gradients = Any  # a tree of arrays in the shape of the trainable parameters

# MLX's own: which rank this process is, and, where they are joined by JACCL, how it finds them.
_RANK, _JACCL = "MLX_RANK", "MLX_JACCL_COORDINATOR"
# Behind the gradients: loss × learned, learned, tokens, samples, step, two halves of the adapter's
# checksum, leave.
_EXTRAS = 8
_MEASURED_SUMS = 5


class Dismissed(Exception):
    """A rank left before this step, so that all do. Nothing was changed."""


class RankLost(Exception):
    """The connection to another rank is gone."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The predictions that count, real tokens and samples of a window."""

    learned: int
    tokens: int
    samples: int

    @classmethod
    def of(cls, window: Sequence[Batch]) -> Counts:
        """Return those of a window."""
        return cls(
            learned=sum(batch.learned for batch in window),
            tokens=sum(batch.tokens for batch in window),
            samples=sum(len(batch.samples) for batch in window),
        )


def is_one_of_several() -> bool:
    """Return whether this process is a rank."""
    return _RANK in os.environ


def own_rank() -> int:
    """Return which rank this process is."""
    return int(os.environ[_RANK])


class Ranks:
    """The ranks of this training, as one of them sees them."""

    def __init__(self, group: Any, heartbeat: Heartbeat) -> None:
        """`group`: a group of `mlx.core.distributed`."""
        self._group, self._heartbeat = group, heartbeat
        self.rank: int = group.rank()
        self.size: int = group.size()

    def add(
        self, loss: mx.array, gradients: Gradients, counts: Counts, step: int, parameters: Gradients
    ) -> tuple[mx.array, Gradients, Counts]:
        """Return the mean loss of a step over all ranks, its gradient and its counts.

        `loss` and `gradients` are means over this rank's `counts.learned` predictions. All weigh
        by it, so that tokens count equally however they are divided. `step` and the trained
        `parameters` must be the same on each rank.

        Raises Dismissed where a rank leaves, RankLost where one is gone, and Broken where the ranks
        are not at one step or do not hold one adapter.
        """
        names, arrays = zip(*_leaves(gradients), strict=True)
        flat = mx.concatenate([array.astype(mx.float32).reshape(-1) for array in arrays])
        mean = loss.astype(mx.float32).reshape(1)
        numbers = [counts.learned, counts.tokens, counts.samples]
        checks = [step % 2**16, *_checksum(parameters)]
        extras = mx.array([*numbers, *checks, 0], mx.float32)
        vector = mx.concatenate([flat * counts.learned, mean * counts.learned, extras])
        total = self._sum(vector, step)

        *summed, leave = [round(number) for number in _numbers(total[1 - _EXTRAS :])]
        if leave:
            raise Dismissed
        if summed[3:] != [self.size * check for check in checks]:
            raise Broken("train.ranks_differ", step=step)
        found = Counts(*summed[:3])
        share = 1 / max(1, found.learned)
        parts, begin = [], 0
        for array in arrays:
            part = total[begin : begin + array.size] * share
            parts.append(part.reshape(array.shape).astype(array.dtype))
            begin += array.size
        tree = tree_unflatten(list(zip(names, parts, strict=True)))
        return total[-_EXTRAS] * share, tree, found

    def measure(self, parameters: Gradients) -> tuple[int, float]:
        """Return the bytes of a step's vector, and the seconds that its sum over the ranks takes:
        the least of a few, since the ranks come to the first one at different times.

        Each rank must call it at the same point. Raises RankLost.
        """
        vector = self._zeros(parameters)
        seconds = []
        self._heartbeat.waiting(0)
        for _ in range(_MEASURED_SUMS):
            began = time.perf_counter()
            self._all_sum(vector)
            seconds.append(time.perf_counter() - began)
        return vector.nbytes, min(seconds)

    def gathered(self, values: Sequence[float]) -> list[list[float]]:
        """Return the values of each rank, all of them as many.

        Each rank must call it at the same point. Raises RankLost.
        """
        width = len(values)
        mine = [0.0] * (self.size * width)
        mine[self.rank * width : (self.rank + 1) * width] = values
        self._heartbeat.waiting(0)
        found = _numbers(self._all_sum(mx.array(mine, mx.float32)))
        return [found[at : at + width] for at in range(0, len(found), width)]

    def leave(self, parameters: Gradients, step: int) -> None:
        """Come to the next sum without a gradient, so that each rank leaves.

        Raises RankLost where one is gone already.
        """
        vector = self._zeros(parameters)
        vector[-1] = 1.0
        self._sum(vector, step)

    def _zeros(self, parameters: Gradients) -> mx.array:
        """Return a vector for a sum that adds nothing."""
        return mx.zeros(sum(array.size for _, array in _leaves(parameters)) + _EXTRAS)

    def _sum(self, vector: mx.array, step: int) -> mx.array:
        """Return the sum of `vector` over all ranks, at an optimizer step."""
        mx.eval(vector)  # before the beat: it is computing, not waiting
        self._heartbeat.waiting(step)
        total = self._all_sum(vector)
        self._heartbeat.computing(step)
        return total

    def _all_sum(self, vector: mx.array) -> mx.array:
        """Return the sum of `vector` over all ranks.

        It is made of a finished array and waited for: nothing else runs at the same time, neither
        on a GPU that the ring would wait for nor in another sum.
        """
        mx.eval(vector)
        try:
            total = mx.distributed.all_sum(vector, group=self._group, stream=mx.cpu)
            mx.eval(total)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise RankLost(str(error)) from error
        return total


def joined(heartbeat: Heartbeat) -> Ranks:
    """Return the ranks of this training, once all of them are there. Raises RankLost, and
    Incompatible where they are to be joined by JACCL and this MLX has none.
    """
    heartbeat.joining()
    backend = "jaccl" if _JACCL in os.environ else "ring"
    if not mx.distributed.is_available(backend):
        raise Incompatible("train.no_jaccl", machine=platform.node(), version=version("mlx"))
    try:
        return Ranks(mx.distributed.init(strict=True, backend=backend), heartbeat)
    except (RuntimeError, ValueError) as error:
        raise RankLost(str(error)) from error


def _checksum(parameters: Gradients) -> tuple[int, int]:
    """Return two halves of 16 bits of the sum of all parameters' bits, modulo 2**32.

    Their sums over all ranks are exact in float32.
    """
    words = mx.array(0, mx.uint32)
    for _, array in _leaves(parameters):
        bits = mx.uint32 if array.itemsize == 4 else mx.uint16
        words = words + array.view(bits).astype(mx.uint32).sum()
    (word,) = _numbers(words.reshape(1))
    return int(word) % 2**16, int(word) // 2**16


def _numbers(vector: mx.array) -> list[float]:
    found: Any = vector.tolist()
    return list(found)


def _leaves(tree: Gradients) -> list[tuple[str, mx.array]]:
    found: Any = tree_flatten(tree)
    return list(found)
