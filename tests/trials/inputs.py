"""Makes the inputs of the trials: chat templates, tiny models with their tokenizers, samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tests.tiny import CHAT_TEMPLATE, make_tiny_model

# Shows the thinking of the answers after the last question alone.
HIDES_THINKING = (
    "{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}"
    "{%- if m.role == 'assistant' -%}"
    "{%- set said = m.content.split('</think>')[-1].lstrip('\n') -%}"
    "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}"
    "{%- if loop.index0 > ns.last -%}{{- '<think>\n' -}}"
    "{%- if '</think>' in m.content -%}{{- thought -}}{%- endif -%}"
    "{{- '\n</think>\n\n' -}}{%- endif -%}"
    "{{- said -}}{%- else -%}{{- m.content -}}{%- endif -%}{{- '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
OPENS_THINKING = HIDES_THINKING.replace(
    "assistant\n' -}}{%- endif", "assistant\n<think>\n' -}}{%- endif"
)
# As Qwen3's: asked for no thinking, it closes an empty one itself.
ASKS_FOR_NONE = HIDES_THINKING.replace(
    "assistant\n' -}}{%- endif",
    "assistant\n' -}}{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{%- endif",
)
TOOLS = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + ' ' }}"
    "{{ c.function.arguments | tojson }}</call>{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PYTHON_TOOLS = TOOLS.replace("c.function.arguments | tojson", "c.function").replace(
    "t | tojson", "t"
)
DROPS_SYSTEM = CHAT_TEMPLATE.replace(
    "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
)
DROPS_TOOL_RESULTS = TOOLS.replace(
    "{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"
)
BACKWARDS = CHAT_TEMPLATE.replace("in messages %}", "in messages | reverse %}")
TWICE = CHAT_TEMPLATE + CHAT_TEMPLATE
ESCAPES = CHAT_TEMPLATE.replace("message['content']", "(message['content'] | tojson)")
NO_END = CHAT_TEMPLATE.replace("<|im_end|>", "")
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def with_tokenizer_config(model: Path, folder: Path, **values: Any) -> Path:
    """A copy of a model with keys of its tokenizer's configuration replaced; None removes one."""
    shutil.copytree(model, folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def with_config(model: Path, folder: Path, **values: Any) -> Path:
    """A copy of a model with keys of its configuration replaced; None removes one."""
    shutil.copytree(model, folder)
    file = folder / "config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def with_tokens_beyond(folder: Path, *tokens: str) -> Path:
    """A model whose tokenizer has tokens that the embedding has no row for."""
    make_tiny_model(folder, vocab=320)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    assert tokenizer.get_vocab_size() > config["vocab_size"]
    return folder


def said(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A conversation of (role, content)."""
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def called(arguments: Any, content: str | None = "") -> dict[str, Any]:
    """A conversation in which the assistant calls a tool and then answers."""
    function = {"name": "tide", "arguments": arguments}
    return {
        "messages": [
            {"role": "user", "content": "How high is the tide?"},
            {"role": "assistant", "content": content, "tool_calls": [{"function": function}]},
            {"role": "tool", "content": "3 metres"},
            {"role": "assistant", "content": "It is 3 metres high."},
        ],
        "tools": [{"type": "function", "function": {"name": "tide", "parameters": {}}}],
    }


def jsonl(file: Path, *samples: Any) -> Path:
    """The samples, one a line."""
    file.write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples), "utf-8")
    return file
