"""The memory budget of a training: of the machine, of the worker, of MLX inside the worker."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.jobs import JobSpec
from safetraind.planner.degree import Degree
from safetraind.planner.facts import Facts
from safetraind.worker_messages.probe_messages import Device

MB = 1 << 20

# What a worker costs beyond MLX's arrays: interpreter, mlx, transformers, tokenizer, mapped files.
# What the probe of each job sees takes the place of the first number, but not below the second.
WORKER_BYTES = 380 * MB
LEAST_WORKER_BYTES = 120 * MB
# What MLX 0.32.4 keeps of each compiled shape: for each layer, and besides for each trained one.
# Measured on a CPU with glibc (llama, 12 layers, 4 and 12 of them trained); 1.2 times as much where
# layers are recomputed.
_TRACE_BYTES, _TRAINED_TRACE_BYTES = 120_000, 300_000
# Shapes of one width: rows of it differ in their share of predictions, to a quarter.
_SHAPES_A_WIDTH = 1.5
# Share of what is available now that a training takes: the rest is for what others do meanwhile.
_SHARE = 0.9
_WORKING_SET_SHARE = 0.95
# Of a Mac's memory, the share that its GPU may use at least: 10.67 of 16 GB, more on larger ones.
# It stands in for `max_recommended_working_set_size` while the GPU cannot be asked.
_LEAST_WORKING_SET = 2 / 3
# The allocator's cache counts neither in MLX's peak nor in its limit: keep it small.
_CACHE_SHARE = 0.05
_MAX_CACHE = 512 * MB
_LEAST_CACHE = 16 * MB
# With memory to spare MLX runs ahead of what is needed, up to its limit (its `eval_impl`): a limit
# equal to the budget lets a step that needs less fill all of it.
_LIMIT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits in bytes, of each of `ranks` processes on this machine.

    `worker`: the whole process. `cache`: the allocator's cache. `mlx`: MLX's peak, before the
    margin is taken off. `wired`: the wired limit to set, 0 to leave it alone.
    """

    worker: int
    cache: int
    mlx: int
    wired: int = 0
    ranks: int = 1

    @property
    def limit(self) -> int:
        """The highest memory limit of MLX. It only stops MLX from running ahead: arrays that a step
        needs are allocated beyond it.
        """
        return int(_LIMIT_SHARE * self.mlx)

    def limit_for(self, largest: int) -> int:
        """Return MLX's memory limit for a step whose largest array has so many bytes, in its probe,
        and in the training unless its plan was measured under another.

        Just below its limit MLX still allocates one array ahead: with room for the largest, what a
        step takes does not exceed the budget unless it needs to.
        """
        return max(1, min(self.limit, self.room(Degree.EXTRAPOLATED) - largest))

    def room(self, degree: Degree) -> int:
        """Return the largest peak, in bytes, that a plan may have whose peak is known to this
        degree.
        """
        return int(self.mlx * (1 - degree.margin))

    @property
    def whole(self) -> int:
        """The bytes of all ranks together."""
        return self.ranks * self.worker

    def most_ranks(self, peak: int, degree: Degree) -> int:
        """Return how many ranks of such a peak this machine has memory for."""
        outside = self.worker - self.mlx
        return int(self.whole // (peak / (1 - degree.margin) + outside))


def trace_bytes(layers: int, trained_layers: int, widths: int, valid_widths: int = 0) -> int:
    """Return about how many bytes MLX keeps of the shapes that a training compiles. `widths`: those
    to which rows are padded, of its own samples and of its evaluations.
    """
    forward = _TRACE_BYTES * layers
    backward = _TRAINED_TRACE_BYTES * min(layers, trained_layers or layers)
    return int(_SHAPES_A_WIDTH * (widths * (forward + backward) + valid_widths * forward))


def available(spec: JobSpec, facts: Facts) -> int:
    """Return the bytes that the job may use: those available now, or those that the user chose.

    More than that can be asked for only on a Mac, which compresses and swaps what other programs
    hold, and only up to what its GPU may use.
    """
    if not spec.memory_budget:
        return facts.host.memory_available
    return min(spec.memory_budget, max(facts.host.memory_available, most(facts)))


def most(facts: Facts) -> int:
    """Return the bytes that a job on a Mac may have if others make way; 0 where nothing can make
    way.
    """
    if not facts.host.is_mac:
        return 0
    device = facts.device
    reported = device.working_set if device is not None and device.kind == "metal" else 0
    working_set = reported or int(_LEAST_WORKING_SET * facts.host.memory_usable)
    return min(facts.host.memory_usable, working_set + WORKER_BYTES)


def budget_for(spec: JobSpec, facts: Facts, worker_bytes: int = WORKER_BYTES) -> Budget:
    """Return the budget of a job on this machine. `worker_bytes`: the worker's memory beside
    arrays. Several ranks have equal parts of the memory.
    """
    device, ranks = facts.device, spec.complete_settings.ranks
    worker = int(_SHARE * facts.host.memory_available)
    if spec.memory_budget:
        worker = available(spec, facts)
    worker //= ranks
    cache = min(_MAX_CACHE, max(_LEAST_CACHE, int(_CACHE_SHARE * worker)))
    mlx = max(0, worker - worker_bytes - cache)
    if device is not None and device.kind == "metal" and device.working_set:
        mlx = min(mlx, int(_WORKING_SET_SHARE * device.working_set / ranks))
        return Budget(worker, cache, mlx, wired=_wired(device, mlx), ranks=ranks)
    return Budget(worker, cache, mlx, ranks=ranks)


def _wired(device: Device, mlx: int) -> int:
    """Return the wired limit in bytes, at most the recommended set. It keeps the weights from being
    paged out.
    """
    return min(device.working_set, mlx)
