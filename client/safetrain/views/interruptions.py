"""The interruptions of a training in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

from safetrain.views.job import clock
from safetrain_shared.history import History
from safetrain_shared.i18n import format_text, marked
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import FINAL, JobState

# The cause's code → a short name for it.
_CAUSES = {
    "job.kernel_panic": marked("kernel panic"),
    "job.machine_restarted": marked("restart of the machine"),
    "job.gpu_watchdog": marked("the display's watchdog"),
    "job.out_of_memory": marked("memory ran out"),
    "train.memory_short": marked("other programs needed the memory"),
    "train.broke_off": marked("other programs needed the memory"),
    "train.disk_full": marked("the disk was full"),
    "train.disk_read_only": marked("the disk could not be written"),
    "train.stopped": marked("the service was stopped"),
    "job.worker_killed": marked("the process was killed"),
    "job.worker_crashed": marked("the process crashed"),
    "job.worker_lost": marked("the process was lost"),
    "train.segment": marked("rest between segments"),
}
_OTHER = marked("interruption")


def interruptions(history: History) -> str:
    """Return the interruptions and the present state in a sentence; empty without any."""
    if not history.interruptions:
        return ""
    listed = ", ".join(_counted(history))
    if history.state is JobState.INTERRUPTED:
        return _("Interrupted: {listed}. It goes on by itself.").format(listed=listed)
    if history.state in FINAL:
        text = _("Interrupted on the way: {listed}. It went on by itself and ended at {time}.")
        return text.format(listed=listed, time=clock(history.state_time))
    return _("Interrupted on the way: {listed}. It went on by itself.").format(listed=listed)


def _counted(history: History) -> Iterable[str]:
    """Yield each kind once, with its count and last time: kernel panic (03:12:09)."""
    kinds: dict[str, list[float]] = {}
    for time, cause in history.interruptions:
        word = _CAUSES.get(cause.code, _OTHER) if cause is not None else _OTHER
        kinds.setdefault(word, []).append(time)
    for word, times in kinds.items():
        if len(times) == 1:
            yield f"{_(word)} ({clock(times[0])})"
        else:
            last = _("{count:int} {count:|time|times}, last {time}")
            args = {"count": len(times), "time": clock(times[-1])}
            yield f"{_(word)} ({format_text(last, args)})"
