"""Writes the Modelfile that `ollama create` reads: weights, template, stop tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from safetraind.storage.durable import read_json
from safetraind.worker.data.thinking import GIVEN, template_options

# Architectures that `ollama create` reads from safetensors (its docs, "Importing a model").
_ARCHITECTURES = ("Llama", "Mistral", "Gemma", "Phi3", "Qwen2")
_MARKS = "\ue000", "\ue001", "\ue002"  # placeholders for system, user and answer (private use)


def write(folder: Path, gguf: str = "", thinking: str = GIVEN) -> bool:
    """Write `Modelfile` for the GGUF file `gguf`, else for the folder itself.

    `thinking`: the setting of that name of the training, by which the template asks.

    Return False, writing nothing, where Ollama can read neither: it does not read weights that MLX
    quantized.
    """
    config = read_json(folder / "config.json")
    if not gguf and not _takes(config):
        return False
    tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    lines = [f"FROM ./{gguf}" if gguf else "FROM ."]
    derived = go_template(tokenizer, thinking)
    if derived.template:
        lines.append(f'TEMPLATE """{derived.template}"""')
    if derived.system:
        lines.append(f'SYSTEM """{derived.system}"""')
    ends = sorted(tokenizer.decode([token]) for token in tokenizer.eos_token_ids)
    lines += [f'PARAMETER stop "{end}"' for end in ends]
    (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


@dataclass(frozen=True, slots=True)
class GoTemplate:
    """A chat template in Ollama's language, and the system text used where none is given.

    Ollama renders the template once a turn, `.System` being empty from the second on, and puts the
    Modelfile's SYSTEM in front of a conversation without one (its template/template.go, Execute).
    """

    template: str = ""
    system: str = ""


def go_template(tokenizer: TokenizerWrapper, thinking: str = GIVEN) -> GoTemplate:
    """Return the chat template in Ollama's language, derived from rendered placeholder turns.

    Empty where there is none, or where it is more than a concatenation of turns.
    """
    system, user, answer = _MARKS
    earlier = system  # a mark that is free where there is no system turn
    render = partial(_rendered, tokenizer, template_options(thinking))
    bare = render([("user", user)])
    answered = render([("user", user), ("assistant", answer)], ask=False)
    if bare.count(user) != 1 or answered.count(answer) != 1:
        return GoTemplate()
    before, after = bare.split(user)
    end = answered.split(answer)[1]
    again = render([("user", earlier), ("assistant", answer), ("user", user)])
    if any(again.count(mark) != 1 for mark in _MARKS):
        return GoTemplate()
    said = again[again.index(earlier) + len(earlier) : again.index(answer)]
    between = again[again.index(answer) + len(answer) : again.index(user)]
    if not between.startswith(end):
        return GoTemplate()
    opening = between.removeprefix(end)  # of a user's turn that is not the first
    gap = said.removeprefix(after) if said.startswith(after) else ""
    led = render([("system", system), ("user", user)])
    default = ""
    if led.count(system) == led.count(user) == 1 and led.index(system) < led.index(user):
        first, rest = led.split(user)[0].split(system)
        default = _default(before, opening, first, rest)
        with_system = _either(f"{first}{{{{ .System }}}}{rest}", opening)
    else:
        with_system = opening
    if '"""' in default or (before != opening and not default):
        return GoTemplate()
    reply = f"{gap}{{{{ .Response }}}}{end}"
    if gap:  # only answers that were given have it, such as a space; the prompt ends before it
        reply = f"{{{{ if .Response }}}}{reply}{{{{ end }}}}"
    return GoTemplate(f"{with_system}{{{{ .Prompt }}}}{after}{reply}", default)


def _default(before: str, opening: str, first: str, rest: str) -> str:
    """Return the system text in `before`, the beginning of a conversation that was given none.

    `first` and `rest`: what stands around one that is given; `opening`: of later turns.
    """
    if before == opening or not (before.startswith(first) and before.endswith(rest)):
        return ""
    return before[len(first) : len(before) - len(rest)]


def _either(with_system: str, without: str) -> str:
    """Return the beginning of a turn for both cases, with a system text and without."""
    if with_system.endswith(without):
        only = with_system.removesuffix(without)
        return f"{{{{ if .System }}}}{only}{{{{ end }}}}{without}"
    return f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{without}{{{{ end }}}}"


def _rendered(
    tokenizer: TokenizerWrapper,
    options: Mapping[str, bool],
    turns: list[tuple[str, str]],
    *,
    ask: bool = True,
) -> str:
    """Return the conversation as text, without the BOS token, which Ollama adds itself."""
    messages: list[Any] = [{"role": role, "content": content} for role, content in turns]
    if not tokenizer.has_chat_template:
        return ""
    try:
        text = tokenizer.apply_chat_template(
            messages, add_generation_prompt=ask, tokenize=False, **options
        )
    except (TemplateError, ValueError):  # no system turns; or several templates without a default
        return ""
    begins = tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    return str(text).removeprefix(tokenizer.bos_token if begins else "")


def _takes(config: dict[str, Any]) -> bool:
    names = config.get("architectures") or [""]
    return "quantization" not in config and names[0].startswith(_ARCHITECTURES)
