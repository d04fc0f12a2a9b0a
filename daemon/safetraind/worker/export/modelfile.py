"""Writes the Modelfile that `ollama create` reads: weights, template, stop tokens."""

from __future__ import annotations

from collections.abc import Mapping
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

    Returns False, writing nothing, where Ollama can read neither: it does not read weights that
    MLX quantized.
    """
    config = read_json(folder / "config.json")
    if not gguf and not _takes(config):
        return False
    tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    lines = [f"FROM ./{gguf}" if gguf else "FROM ."]
    template = go_template(tokenizer, thinking)
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    ends = sorted(tokenizer.decode([token]) for token in tokenizer.eos_token_ids)
    lines += [f'PARAMETER stop "{end}"' for end in ends]
    (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def go_template(tokenizer: TokenizerWrapper, thinking: str = GIVEN) -> str:
    """Return the chat template in Ollama's language, derived from rendered placeholder turns.

    Empty where there is none, or where it is more than a concatenation of turns.
    """
    system, user, answer = _MARKS
    render = partial(_rendered, tokenizer, template_options(thinking))
    bare = render([("user", user)])
    led = render([("system", system), ("user", user)])
    answered = render([("user", user), ("assistant", answer)], ask=False)
    if bare.count(user) != 1 or answered.count(answer) != 1:
        return ""
    before, after = bare.split(user)
    end = answered.split(answer)[1]
    if led.count(system) == led.count(user) == 1 and led.index(system) < led.index(user):
        opening, between = led.split(user)[0].split(system)
        before = _either(f"{opening}{{{{ .System }}}}{between}", before)
    return f"{before}{{{{ .Prompt }}}}{after}{{{{ .Response }}}}{end}"


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
