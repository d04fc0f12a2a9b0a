"""What the page says of a training that has ended: verdict, checkpoints, what comes next. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import click

from safetrain.views.evaluation import head_lines
from safetrain.views.job import ENDED, name_of
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.history import History
from safetrain_shared.i18n import decimal, integer, percent
from safetrain_shared.i18n import translate as _


def after(job: Job, history: History) -> dict[str, Any]:
    """Return the texts of the station; {} for a job that has nothing to show yet."""
    evaluates = job.spec.evaluation.job > 0
    if name_of(job) not in ENDED or not (history.checkpoints or evaluates):
        return {}
    judged = job.HasField("evaluation")
    return {
        "judgement": job.evaluation.verdict.judgement if judged else "",
        "verdict": _verdict(job) if judged else [],
        "checkpoints": [] if evaluates else _checkpoints(job, history),
        "trained": job.spec.evaluation.job or job.id,
        "evaluates": evaluates,
    }


def _verdict(job: Job) -> list[str]:
    """Return the verdict, then what it stands on, without the checkpoints' scores."""
    end = len(job.evaluation.checkpoints)
    lines = [click.unstyle(line).strip() for line in head_lines(job.evaluation)]
    return lines[: len(lines) - end - 1] if end else lines


def _checkpoints(job: Job, history: History) -> list[dict[str, Any]]:
    """Return the checkpoints with what is known of each, the newest first."""
    scores = {one.checkpoint: one for one in job.evaluation.checkpoints}
    losses = {one.step: one.loss for one in history.evaluations}
    best = history.best
    found = []
    for saved in reversed(history.checkpoints):
        name = PurePath(saved.path).name
        facts = [_("step {step}").format(step=integer(saved.step))]
        if saved.step in losses:
            loss = decimal(losses[saved.step], 3)
            facts.append(_("validation loss {loss}").format(loss=loss))
        if name in scores:
            right = percent(scores[name].score, digits=0)
            facts.append(_("{share} of the questions right").format(share=right))
        is_best = best is not None and best.step == saved.step
        found.append({"name": name, "facts": " · ".join(facts), "best": is_best})
    return found
