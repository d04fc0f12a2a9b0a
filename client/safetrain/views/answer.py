"""Answers as text: their source, their speed, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json
from safetrain_proto.v1.answers_pb2 import AnswerDone, AnswerSource, AskEvent
from safetrain_shared.i18n import decimal, format_text, integer
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.wire import finding_from_wire


@dataclass
class Answer:
    """One answer, collected from its stream."""

    source: AnswerSource = field(default_factory=AnswerSource)
    done: AnswerDone = field(default_factory=AnswerDone)
    parts: list[str] = field(default_factory=list)

    def take(self, event: AskEvent) -> None:
        """Add one message of the stream."""
        match event.WhichOneof("body"):
            case "source":
                self.source = event.source
                self.parts.clear()  # a second source: the answer begins anew
            case "text":
                self.parts.append(event.text)
            case "done":
                self.done = event.done

    def to_json(self) -> dict[str, Any]:
        """Return the answer, its source and its speed."""
        numbers = message_to_json(self.done)
        return {"answer": "".join(self.parts), "source": message_to_json(self.source), **numbers}


def source(message: AnswerSource) -> list[str]:
    """Return which model answers, with which adapter, after which step of a training."""
    parts = [short_path(message.model)]
    if message.adapter:
        parts.append(short_path(message.adapter))
    elif message.training:
        parts.append(_("with the weights as they are"))
    else:
        parts.append(_("without an adapter"))
    if message.job_id:
        parts.append(_("job {id}").format(id=message.job_id))
    if message.training:
        parts.append(_("in training, after step {step}").format(step=integer(message.step)))
    lines = [f"[{' · '.join(parts)}]"]
    if message.HasField("note"):
        lines.append(say(finding_from_wire(message.note), fallback=message.note.text))
    return lines


def numbers(done: AnswerDone) -> str:
    """Return length and speed of the answer, and whether it was cut."""
    text = _(
        "[{count:int} {count:|token|tokens} · first after {seconds} s · {speed:speed} tokens/s]"
    )
    args = {
        "count": done.tokens,
        "seconds": decimal(done.seconds_to_first_token, 2),
        "speed": done.tokens_per_second,
    }
    text = format_text(text, args)
    if done.interrupted:
        return text + " " + _("cut there: the training went on to its end; ask again")
    return text + (" " + _("cut there: --max-tokens gives more") if done.cut else "")
