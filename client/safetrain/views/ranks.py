"""The ranks of a training as text: what each does, its memory and pace, who waits for whom."""

from __future__ import annotations

from collections.abc import Sequence

from safetrain.views.labels import PHASES, RANK_STATES, word
from safetrain_proto.v1.jobs_pb2 import Rank
from safetrain_shared.i18n import decimal, duration, integer, size
from safetrain_shared.i18n import translate as _

_SILENT_SECONDS = 10.0  # from here on a rank's silence is shown


def rank_lines(ranks: Sequence[Rank]) -> list[tuple[str, str]]:
    """Return a label and a text for each rank; one on another machine is called by its name."""
    return [(_label(rank), _line(rank, ranks)) for rank in ranks]


def _label(rank: Rank) -> str:
    return rank.machine or _("rank {number}").format(number=rank.number)


def _line(rank: Rank, ranks: Sequence[Rank]) -> str:
    parts = [_state(rank, ranks)]
    if rank.step_seconds:
        text = _("step {step}: {own} s, and {wait} s waiting")
        own, wait = decimal(rank.step_seconds, 2), decimal(rank.wait_seconds, 2)
        parts.append(text.format(step=integer(rank.step + 1), own=own, wait=wait))
    if rank.footprint:
        parts.append(size(rank.footprint))
    if rank.silent_seconds >= _SILENT_SECONDS:
        parts.append(_("silent for {time}").format(time=duration(rank.silent_seconds)))
    return " · ".join(parts)


def _state(rank: Rank, ranks: Sequence[Rank]) -> str:
    """Return what the rank does; of one that waits, for which others."""
    others = [other for other in ranks if other.state not in ("waiting", "ended")]
    if rank.state == "waiting" and others and any(other.machine for other in ranks):
        return _("waiting for {names}").format(names=", ".join(map(_label, others)))
    busy = [str(other.number) for other in others]
    if rank.state == "waiting" and busy:
        return _("waiting for rank {ranks}").format(ranks=", ".join(busy))
    return word({**PHASES, **RANK_STATES}, rank.state)
