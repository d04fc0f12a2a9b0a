"""An export as text: the folder, the result of the check, and commands to use the model."""

from __future__ import annotations

import shlex

from safetrain.views.job import short_path
from safetrain_proto.v1.exports_pb2 import Agreement, Exported
from safetrain_shared.i18n import format_text, percent, size
from safetrain_shared.i18n import translate as _


def export_lines(done: Exported, *, host: str = "") -> list[str]:
    """Return what was written, how it agrees with the adapter, and commands to use it.

    `host`: the other machine on which it lies; then how to bring it here.
    """
    path, pasted = short_path(done.path), _for_shell(done.path)
    lines = [
        _("{path} is written ({size}): job {id} and its base in one.").format(
            path=path, size=size(done.bytes), id=done.job_id
        ),
        "  " + _bits(done),
        "  " + _agreement(_("checked"), done.agreement),
    ]
    if done.gguf:
        file = f"{short_path(done.gguf)} ({done.gguf_type})"
        lines.append("  " + _agreement(file, done.gguf_agreement))
    if host:
        bring = shlex.join(["scp", "-r", f"{host}:{done.path}", "."])
        return [
            *lines,
            "",
            _("It stays on {host}. Bring it here with:").format(host=host),
            f"  {bring}",
        ]
    lines += ["", _("Try it with:"), f"  mlx_lm.generate --model {pasted} --prompt …"]
    if done.modelfile:
        modelfile = _for_shell(f"{done.path}/Modelfile")
        lines.append(f"  ollama create NAME -f {modelfile}")
    else:
        lines.append("  " + _("For Ollama, export with --gguf."))
    return lines


def given_line(program: str, name: str) -> str:
    """Return that a program has the model, and how to talk to it there."""
    if program == "ollama":
        return _("Ollama has it: {command}").format(command=f"ollama run {name}")
    return _("LM Studio lists it as {name}.").format(name=name)


def _for_shell(path: str) -> str:
    """Return a path as it can be pasted into a shell: short where that needs no quotes."""
    short = short_path(path)
    plain = short.removeprefix("~")
    return short if shlex.quote(plain) == plain else shlex.quote(path)


def _bits(done: Exported) -> str:
    if not done.quantized:
        return _("16 bits throughout")
    text = _("quantized as its base; the fused layers have {bits} bits, so that nothing is lost")
    return text.format(bits=done.bits)


def _agreement(what: str, found: Agreement) -> str:
    """Return the measured agreement; less than 0.1 % is shown as such, not as 0."""
    lost = f"< {percent(0.001)}" if 0 < found.lost < 0.001 else percent(found.lost)
    text = _(
        "{what}: {same:int} of {tokens:int} {tokens:|token|tokens} as with the adapter; "
        "{lost} of its effect is lost"
    )
    same = found.tokens - found.differing
    return format_text(text, {"what": what, "same": same, "tokens": found.tokens, "lost": lost})
