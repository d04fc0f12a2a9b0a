"""The models worth training on this machine, as lines of text: one a model, class by class."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from safetrain.views.labels import sign
from safetrain_proto.v1.models_pb2 import SuggestedModel, SuggestModelsResponse
from safetrain_shared.findings import Status
from safetrain_shared.i18n import duration, format_text, size, translate
from safetrain_shared.i18n import marked as _

CLASSES = {
    "tiny": _("Less than 1 GiB of weights"),
    "small": _("1 to 3 GiB of weights"),
    "medium": _("3 to 7 GiB of weights"),
    "large": _("7 GiB of weights and more"),
}


def suggestion_lines(found: SuggestModelsResponse) -> Iterator[str]:
    """The models, then what they were judged by."""
    for size_class, models in groupby(found.models, key=lambda model: model.size_class):
        yield translate(CLASSES.get(size_class, size_class))
        for model in models:
            yield from _model(model, found.room)
    yield from suggestion_notes(found)


def suggestion_notes(found: SuggestModelsResponse) -> Iterator[str]:
    """Yield what the models were judged by, a sentence each."""
    text = translate(
        "For {samples:int} {samples:|sample|samples} of up to {longest:int} "
        "{longest:|token|tokens}, counted by their bytes, and {room:bytes} for arrays; "
        "nothing was run: preflight measures."
    )
    args = {"samples": found.samples, "longest": found.longest, "room": found.room}
    yield format_text(text, args)
    if found.speed_of:
        text = translate("Times are scaled from the speed of {model}, measured on this machine.")
        yield text.format(model=found.speed_of)
    else:
        yield translate(
            "Times are shown once preflight has measured a model on this machine, such as demo."
        )
    read = max((model.read for model in found.models), default="")
    text = translate("Licences and languages as the model cards had them in {read}; see --json.")
    yield text.format(read=read)


def _model(model: SuggestedModel, room: int) -> Iterator[str]:
    """✓ name · 2.1 GiB · Apache-2.0 · 119 languages, Portuguese too, and its plan below."""
    mark = sign(Status.PASSED if model.fits else Status.SKIPPED)
    yield f"  {mark} {model.name} · {suggestion_facts(model)}"
    yield f"      {suggestion_costs(model, room)}"


def suggestion_costs(model: SuggestedModel, room: int) -> str:
    """Return what a training of it takes here, or why it does not fit. `room`: bytes."""
    if not model.fits:
        text = translate("does not fit: it takes {needed}, and {room} can be had")
        return text.format(needed=size(model.peak), room=size(room))
    costs = [translate("{peak} at the peak").format(peak=size(model.peak))]
    if model.expected_seconds:
        costs.append(translate("about {time}").format(time=duration(model.expected_seconds)))
    return ", ".join(costs)


def suggestion_facts(model: SuggestedModel) -> str:
    """Return size, licence and languages of a model on one line."""
    return " · ".join((size(model.bytes), model.licence, _languages(model)))


def _languages(model: SuggestedModel) -> str:
    if model.portuguese == "pt-PT":
        return translate("made for the Portuguese of Portugal")
    if not model.languages:
        return translate("languages not named")
    text = translate("{count:int} {count:|language|languages}, Portuguese too")
    if not model.portuguese:
        text = translate("{count:int} {count:|language|languages}")
    return format_text(text, {"count": model.languages})
