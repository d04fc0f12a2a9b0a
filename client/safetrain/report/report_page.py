"""The report of a training: one HTML page without external resources, for screen and print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import click
from markupsafe import Markup, escape

from safetrain.report.html import (
    EMPTY,
    code,
    figure,
    lines,
    moment,
    paragraph,
    section,
    table,
    tiles,
    verdicts,
)
from safetrain.report.preflight_facts import DataFile, PreflightFacts
from safetrain.report.svg import NARROW, WIDE
from safetrain.views import charts, rerun_command
from safetrain.views.answer import Answer
from safetrain.views.curves import Curves, curves_of
from safetrain.views.evaluation import head_lines
from safetrain.views.event_lines import describe
from safetrain.views.interruptions import interruptions
from safetrain.views.job import name_of, time_left
from safetrain.views.labels import word
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared import i18n
from safetrain_shared.arg_words import STATES
from safetrain_shared.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Outcome,
    PhaseChanged,
    StepDone,
)
from safetrain_shared.findings import Finding
from safetrain_shared.history import history
from safetrain_shared.i18n import (
    decimal,
    duration,
    format_text,
    integer,
    number,
    percent,
    size,
    throughput,
)
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.messages import SENTENCES, say
from safetrain_shared.printable import printable
from safetrain_shared.settings import FIELDS, SettingValue, TrainingSettings
from safetrain_shared.wire import finding_from_wire, plan_from_wire, spec_from_wire

MOST_CHECKPOINTS = 60  # rows; the newest are shown
MOST_EVALUATIONS = 100
MOST_EVENTS = 300
_NOT_LISTED = (StepDone, Evaluated, CheckpointSaved, PhaseChanged, Outcome)
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sample:
    """A question with the answers of base model, adapter and data."""

    question: str
    base: Answer
    adapter: Answer
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of the page. `made`: seconds since the epoch, UTC.

    `measured`: the facts of the preflight report, None without one; `machine` is shown then.
    `on_disk`: the paths of checkpoints that still exist; None: not known.
    """

    job: Job
    events: Sequence[Event]
    made: float
    version: str = ""
    measured: PreflightFacts | None = None
    machine: str = ""
    samples: Sequence[Sample] = ()
    on_disk: frozenset[str] | None = frozenset()


def page(contents: Contents) -> str:
    """Return the page, in the language in use."""
    job, curves = contents.job, curves_of(contents.events)
    spec = spec_from_wire(job.spec)
    plan = plan_from_wire(job.plan) if job.HasField("plan") else curves.plan
    sections = [
        ("summary", _("At a glance"), _overview(contents, plan, curves)),
        ("curves", _("Curves"), _curves(curves)),
        ("answers", _("Answers"), _answers(contents.samples)),
        ("settings", _("Settings, and why"), _settings(spec, plan)),
        ("machine", _("The machine"), _machine(contents)),
        ("data", _("The data"), _data(spec, plan, contents.measured)),
        ("checkpoints", _("Checkpoints"), _checkpoints(curves, contents.on_disk)),
        ("events", _("What happened"), _events(contents.events)),
        ("again", _("Run it again"), _again(spec, plan)),
    ]
    filled = [(name, title, body) for name, title, body in sections if body]
    title = job.spec.name or _("Job {id}").format(id=job.id)
    return Template((_HERE / "report.html").read_text("utf-8")).substitute(
        lang="pt-PT" if i18n.language() == "pt" else "en",
        title=escape(_("{name}: training report").format(name=title)),
        style=(_HERE / "report.css").read_text("utf-8"),
        header=_header(job, title, [(name, heading) for name, heading, _body in filled]),
        main=EMPTY.join(section(*each) for each in filled),
        footer=_footer(contents),
    )


def _header(job: Job, title: str, links: Sequence[tuple[str, str]]) -> Markup:
    state = name_of(job)
    items = EMPTY.join(Markup('<li><a href="#{}">{}</a></li>').format(*link) for link in links)
    number_of_job = [_("Job {id}").format(id=job.id)] if job.spec.name else []
    parts = [*number_of_job, job.spec.model, moment(job.started or job.created)]
    return Markup(
        '<h1>{title}</h1><p class="under"><span class="state {state}">{word}</span> {parts}</p>'
        '<nav aria-label="{nav}"><ul>{items}</ul></nav>'
    ).format(
        title=title,
        state=state,
        word=word(STATES, state),
        parts=Markup(" · ").join(parts),
        nav=_("On this page"),
        items=items,
    )


def _footer(contents: Contents) -> Markup:
    text = escape(_("Written by safetrain {version} on {time}."))
    return paragraph(text.format(version=contents.version, time=moment(contents.made)))


def _overview(contents: Contents, plan: Plan | None, curves: Curves) -> Markup:
    job, cause = contents.job, EMPTY
    if job.HasField("cause"):
        text = say(finding_from_wire(job.cause), fallback=job.cause.text)
        cause = Markup('<p class="cause">{}</p>').format(text)
    interrupted = interruptions(history(contents.events))
    first = paragraph(interrupted) if interrupted else EMPTY
    return _verdict(job) + first + tiles(_figures(job, plan, curves)) + cause


def _verdict(job: Job) -> Markup:
    """What the evaluation concluded; nothing where there was none."""
    if not job.HasField("evaluation"):
        return EMPTY
    first, *others = (click.unstyle(line).strip() for line in head_lines(job.evaluation))
    shown = Markup('<p class="verdict"><strong>{}</strong></p>').format(first)
    return shown + lines("\n".join(others))


def _figures(job: Job, plan: Plan | None, curves: Curves) -> Iterator[tuple[str, str, str]]:
    best, last = curves.best, curves.steps[-1] if curves.steps else None
    if best is not None:
        at = _("at step {step}, epoch {epoch}")
        at = at.format(step=integer(best.step), epoch=best.epoch + 1)
        yield _("best validation loss"), decimal(best.loss, 3), at
    if last is not None:
        yield _("training loss, last"), decimal(last.loss, 3), ""
    total = job.total_steps or (plan.total_steps if plan else 0)
    done = max(job.step, curves.last_step)
    if total:
        share = percent(min(1.0, done / total))
        yield _("steps"), f"{integer(done)} / {integer(total)}", share
    if job.started:
        took = duration(job.finished - job.started) if job.finished else time_left(job)
        label = _("time taken") if job.finished else _("time left")
        yield label, took or "–", _attempts(job.attempt)
    if curves.steps:
        yield _("tokens per second"), throughput(curves.mean_speed), _("on average")
        peak = max(step.footprint or step.peak_memory for step in curves.steps)
        budget = plan.memory_budget if plan else 0
        text = _("of a budget of {size}").format(size=size(budget)) if budget else ""
        yield _("highest footprint"), size(peak), text


def _attempts(count: int) -> str:
    text = _("in {count:int} {count:|attempt|attempts}")
    return format_text(text, {"count": count}) if count > 1 else ""


def _curves(curves: Curves) -> Markup:
    makers = (charts.loss, charts.learning_rate, charts.memory, charts.speed)
    shown = [chart for chart in (make(curves) for make in makers) if not chart.empty]
    if not shown:
        return paragraph(_("No step has been logged yet."))
    first, *others = shown
    parts = [figure(first, WIDE), *(figure(chart, NARROW) for chart in others)]
    parts.append(_evaluations(curves.evaluations))
    return Markup('<div class="figures">{}</div>').format(EMPTY.join(parts))


def _evaluations(evaluations: Sequence[Evaluated]) -> Markup:
    if not evaluations:
        return EMPTY
    rows = [
        (integer(e.step), str(e.epoch + 1), decimal(e.loss, 4), integer(e.samples))
        for e in evaluations[-MOST_EVALUATIONS:]
    ]
    head = [_("step"), _("epoch"), _("validation loss"), _("samples")]
    title = _("Evaluations on the validation file")
    caption = _("{shown} of {count}, the newest last")
    caption = caption.format(shown=integer(len(rows)), count=integer(len(evaluations)))
    return Markup("<div><h3>{}</h3>{}</div>").format(title, table(caption, head, rows, "numbers"))


def _answers(samples: Sequence[Sample]) -> Markup:
    return EMPTY.join(
        Markup(
            '<h3>{question}</h3>{expected}<div class="answers"><div><h4>{base}</h4>{before}</div>'
            '<div class="trained"><h4>{adapter}</h4>{after}</div></div>'
        ).format(
            question=sample.question,
            expected=_expected(sample.expected),
            base=_("Base model"),
            before=_answer(sample.base),
            adapter=_adapter(sample.adapter),
            after=_answer(sample.adapter),
        )
        for sample in samples
    )


def _expected(text: str) -> Markup:
    return paragraph(_("In the data: {answer}").format(answer=printable(text))) if text else EMPTY


def _adapter(answer: Answer) -> str:
    source = answer.source
    if source.training:
        return _("In training, after step {step}").format(step=integer(source.step))
    return _("With the adapter")


def _answer(answer: Answer) -> Markup:
    text = printable("".join(answer.parts)).strip()
    return lines(text + (" […]" if answer.done.cut else "")) if text else paragraph("–")


def _settings(spec: JobSpec, plan: Plan | None) -> Markup:
    chosen = spec.settings
    if plan is None:
        text = _("Nothing is planned yet; these settings were chosen:")
        values = dict(chosen)
        return (
            paragraph(text) + _settings_table(values, chosen)
            if values
            else paragraph(_("Nothing is planned yet, and no setting was chosen."))
        )
    reasons = verdicts((reason.status, say(reason)) for reason in plan.reasons)
    why = Markup("<h3>{}</h3>{}").format(_("Why"), reasons) if reasons else EMPTY
    values = {name: getattr(plan.settings, name) for name in FIELDS}
    return why + _settings_table(values, chosen)


def _settings_table(
    values: Mapping[str, SettingValue], chosen: Mapping[str, SettingValue]
) -> Markup:
    rows = [
        (name, _value(value), _chooser(name, value, chosen), _(SENTENCES[f"explain.{name}"]))
        for name, value in values.items()
    ]
    head = [_("setting"), _("value"), _("chosen by"), _("what it means")]
    return table(_("All settings of this training"), head, rows, "settings")


def _chooser(name: str, value: SettingValue, chosen: Mapping[str, SettingValue]) -> str:
    if name in chosen:
        return _("you") if chosen[name] == value else _("a back-off")
    return _("default") if value == getattr(TrainingSettings(), name) else _("the plan")


def _value(value: SettingValue) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, tuple):
        return ", ".join(value) or _("all linear layers")
    if isinstance(value, float):
        return number(value)
    return str(value)


def _machine(contents: Contents) -> Markup:
    if contents.measured is None:
        return paragraph(contents.machine)
    return _findings(contents.measured.of("hardware", "gpu", "dependencies", "model", "disk"))


def _findings(findings: Sequence[tuple[Finding, str]]) -> Markup:
    return verdicts((finding.status, say(finding, fallback=text)) for finding, text in findings)


def _data(spec: JobSpec, plan: Plan | None, measured: PreflightFacts | None) -> Markup:
    parts = []
    if measured is not None and measured.files:
        parts.append(_files(measured.files))
    else:
        head = [_("file"), _("path")]
        rows = [(_("training"), spec.train), (_("validation"), spec.valid)]
        parts.append(table(_("Training files"), head, rows))
    if plan is not None and plan.samples:
        text = _(
            "{samples:int} {samples:|sample is|samples are} trained at up to {length:int} "
            "tokens; {cut:int} of them {cut:|is|are} cut there, {out:int} {out:|is|are} left "
            "out because {out:|its|their} whole answer lies beyond."
        )
        args = {
            "samples": plan.samples,
            "length": plan.settings.max_seq_length,
            "cut": plan.samples_cut,
            "out": plan.samples_left_out,
        }
        parts.append(paragraph(format_text(text, args)))
    if measured is not None:
        parts.append(_findings(measured.of("data")))
        parts += [_as_seen(file) for file in measured.files[:1] if file.preview]
    return EMPTY.join(parts)


def _as_seen(file: DataFile) -> Markup:
    """The first samples as the model sees them; what is learned is marked."""
    title = _("As the model sees it; what is learned is marked")
    samples = EMPTY.join(
        Markup('<pre class="seen">{}</pre>').format(EMPTY.join(_piece(*piece) for piece in sample))
        for sample in file.preview
    )
    return Markup("<h3>{}</h3>{}").format(title, samples)


def _piece(text: str, learned: bool) -> Markup:
    return Markup("<mark>{}</mark>" if learned else "{}").format(printable(text))


def _files(files: Sequence[DataFile]) -> Markup:
    head = [
        _("file"),
        _("format"),
        _("samples"),
        _("size"),
        _("median"),
        _("nine in ten up to"),
        _("longest"),
    ]
    rows = []
    for file in files:
        lengths = file.lengths
        tokens = (lengths.median, lengths.ninetieth, lengths.longest) if lengths else ()
        counts = [integer(count) for count in tokens] or ["–"] * 3
        row = [Path(file.path).name, file.format, integer(file.samples), size(file.size), *counts]
        rows.append(row)
    return table(_("Training files; the last three columns are tokens"), head, rows, "numbers")


def _checkpoints(curves: Curves, on_disk: frozenset[str] | None) -> Markup:
    saved = curves.checkpoints
    if not saved:
        return paragraph(_("No checkpoint has been saved yet."))
    losses = {e.step: decimal(e.loss, 4) for e in curves.evaluations}
    rows = [
        (
            Path(each.path).name,
            integer(each.step),
            size(each.bytes),
            losses.get(each.step, "–"),
            "–" if on_disk is None else _("yes") if each.path in on_disk else _("no"),
        )
        for each in saved[-MOST_CHECKPOINTS:]
    ]
    head = [_("checkpoint"), _("step"), _("size"), _("validation loss"), _("on disk")]
    caption = _("{shown} of {count}, the newest last")
    caption = caption.format(shown=integer(len(rows)), count=integer(len(saved)))
    kept = _(
        "The newest ones stay on the disk, as keep_checkpoints says; adapters/ keeps the best."
    )
    return table(caption, head, rows, "numbers") + paragraph(kept)


def _events(events: Sequence[Event]) -> Markup:
    listed = [e for e in events if e.body is not None and not isinstance(e.body, _NOT_LISTED)]
    rows = [
        (
            moment(event.time, exact=True) if event.time else "–",
            str(event.attempt or "–"),
            click.unstyle(describe(event)),
        )
        for event in listed[-MOST_EVENTS:]
    ]
    head = [_("when"), _("attempt"), _("event")]
    caption = _("Changes of state, plans, warnings; steps are in the curves")
    return table(caption, head, rows, "events") if rows else EMPTY


def _again(spec: JobSpec, plan: Plan | None) -> Markup:
    settings = plan.settings if plan else None
    intro = _("The job as it was asked for; an old run in the folder is moved aside:")
    first = paragraph(intro) + code(rerun_command.as_asked(spec, settings), _("command, as asked"))
    if plan is None:
        return first
    exact = _("The same with every setting named, so that nothing is decided anew:")
    return (
        first
        + paragraph(exact)
        + code(rerun_command.pinned(spec, plan.settings), _("command, exact"))
    )
