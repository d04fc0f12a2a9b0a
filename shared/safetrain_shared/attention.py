"""When training computes attention in blocks: a rule that planner and worker share."""

from __future__ import annotations

# Below it the score matrix is small, and whole rows of queries are computed faster at once.
LEAST_WIDTH = 512  # tokens
BLOCK = 256  # queries whose scores exist at once
# Head sizes of the fused attention backward on Metal (mlx 0.32.4), which takes no array mask.
_FUSED_SIZES = frozenset({64, 72, 80, 96, 128, 192, 256})


def has_fused_backward(*, masked: bool, sizes: tuple[int, int]) -> bool:
    """Whether a device with a backward pass of its own without the score matrix can use it.

    `masked`: the mask is an array (packed rows, a window shorter than the row) or there are sinks.
    `sizes`: of a head's keys and values.
    """
    return not masked and sizes[0] == sizes[1] and sizes[0] in _FUSED_SIZES


def attends_in_blocks(width: int, *, masked: bool, sizes: tuple[int, int], fused: bool) -> bool:
    """Whether attention over `width` tokens is computed in blocks, without its score matrix.

    `masked` and `sizes` as in `has_fused_backward`. `fused`: the device has such a backward pass,
    which is faster wherever it applies.
    """
    if width <= LEAST_WIDTH:
        return False
    return not (fused and has_fused_backward(masked=masked, sizes=sizes))
