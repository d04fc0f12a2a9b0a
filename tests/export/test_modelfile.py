"""The Modelfile's template over several turns, by the rules by which Ollama renders one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from safetraind.worker.export.modelfile import GoTemplate, go_template
from tests.tiny import CHAT_TEMPLATE, make_tiny_model

DEFAULT = "És um assistente."
# As Qwen2.5 and SmolLM2: a system text of its own where the conversation has none.
DEFAULTS = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\n" + DEFAULT + "<|im_end|>\n' }}"
    "{% endif %}" + CHAT_TEMPLATE
)
# As Mistral: the system text stands within the first question.
WITHIN = (
    "{% set ns = namespace(led='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.led = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}{{ '[INST] ' + ns.led + m.content + '[/INST]' }}"
    "{% set ns.led = '' %}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
)
# As Llama 3.1: the first turn alone has a heading, be there a system text or not.
HEADED = "{{ 'Data: hoje\n' }}" + CHAT_TEMPLATE

TURNS = [
    ("user", "Onde?"),
    ("assistant", "Em Faro."),
    ("user", "Quando?"),
    ("assistant", "Em 1910."),
    ("user", "Quem?"),
]
Conversation = list[tuple[str, str]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tiny_model(tmp_path_factory.mktemp("m")), eos_token_ids=[2])


def execute(derived: GoTemplate, turns: Conversation) -> str:
    """As `Execute` in Ollama's template/template.go does it for a template without `.Messages`:
    once a turn, the system text in the first alone, and the last up to the answer. The Modelfile's
    SYSTEM stands in for a system turn that is missing (its server/routes.go).
    """
    if turns[0][0] != "system" and derived.system:
        turns = [("system", derived.system), *turns]
    values = {"System": "", "Prompt": "", "Response": ""}
    text = ""
    for role, content in turns:
        if role == "user" and values["Response"]:
            text += filled(derived.template, values)
            values = {"System": "", "Prompt": "", "Response": ""}
        values[{"system": "System", "user": "Prompt", "assistant": "Response"}[role]] = content
    return text + filled(re.split(r"\{\{ (?:if )?\.Response", derived.template)[0], values)


def filled(template: str, values: dict[str, str]) -> str:
    choice = re.compile(
        r"\{\{ if \.(\w+) \}\}(.*?)(?:\{\{ else \}\}(.*?))?\{\{ end \}\}", re.DOTALL
    )
    template = choice.sub(lambda f: f[2] if values[f[1]] else f[3] or "", template)
    return re.sub(r"\{\{ \.(\w+) \}\}", lambda found: values[found[1]], template)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, DEFAULTS, WITHIN])
@pytest.mark.parametrize("led", [False, True])
@pytest.mark.parametrize("turns", [1, 3, 5])
def test_ollama_renders_a_conversation_as_the_chat_template_does(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, led: bool, turns: int
) -> None:
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", template)
    conversation = [("system", "Sê breve.")] * led + TURNS[:turns]
    messages = [{"role": role, "content": content} for role, content in conversation]
    right = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    shown = execute(go_template(tokenizer), conversation)
    assert shown == right.removeprefix(tokenizer.bos_token) or shown == right
    assert shown.count(DEFAULT) == (template == DEFAULTS and not led)


def test_a_heading_that_cannot_be_said_once_gives_no_template(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", HEADED)
    assert go_template(tokenizer) == GoTemplate()
