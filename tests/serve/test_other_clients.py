"""Programs of others that speak to `safetrain serve`: OpenAI's npm client and the chat program llm.

They are installed from their registries, so that these tests are slow and need the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import DaemonProcess
from tests.serve.served import QUESTION, Served, machine_in, roomy_model

pytestmark = pytest.mark.slow

NODE = """
import OpenAI from "openai";
const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = { model, messages: %s, max_tokens: 24, temperature: 0 };
const whole = await client.chat.completions.create(ask);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true }))
  streamed += chunk.choices[0]?.delta?.content ?? "";
const models = [];
for await (const found of client.models.list()) models.push(found.id);
let refused;
try { await client.chat.completions.create({ ...ask, n: 2 }); }
catch (error) { refused = [error.constructor.name, error.status, error.param]; }
console.log(JSON.stringify(
  { whole: whole.choices[0].message.content, streamed, models, usage: whole.usage, refused }));
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    daemons: Iterator[DaemonProcess] = machine_in(tmp_path_factory.mktemp("serve"))
    model = roomy_model(tmp_path_factory.mktemp("model") / "tiny")
    process = Served(next(daemons), str(model))
    yield process
    process.end()
    next(daemons, None)


def test_openais_client_for_node(served: Served, tmp_path: Path) -> None:
    subprocess.run(["npm", "install", "--silent", "openai"], cwd=tmp_path, check=True)
    (tmp_path / "ask.mjs").write_text(NODE % json.dumps(QUESTION))
    command = ["node", "ask.mjs", str(served.client.base_url), str(served.token), served.model]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    answer = served.ask(max_tokens=24)
    assert told["whole"] == told["streamed"] == answer.choices[0].message.content
    assert told["models"] == [served.model]
    assert told["usage"] == answer.usage.to_dict()
    assert told["refused"] == ["BadRequestError", 400, "n"]


def test_the_chat_program_llm(served: Served, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    scripts = tmp_path / "venv" / "bin"
    subprocess.run([scripts / "pip", "install", "--quiet", "llm"], check=True, stderr=-3)
    home = tmp_path / "llm"
    home.mkdir()
    (home / "extra-openai-models.yaml").write_text(
        f"- model_id: farense\n  model_name: {served.model}\n"
        f"  api_base: {served.client.base_url}\n  api_key_name: safetrain\n"
    )
    (home / "keys.json").write_text(json.dumps({"safetrain": served.token}))
    question = QUESTION[0]["content"]
    options = ["-m", "farense", "-o", "max_tokens", "24", "-o", "temperature", "0"]
    answer = served.text(max_tokens=24)

    def llm(*words: str, said: str = "") -> str:
        environment = {**os.environ, "LLM_USER_PATH": str(home)}
        command = [scripts / "llm", *words, *options]
        return subprocess.run(
            command, env=environment, input=said, check=True, capture_output=True, text=True
        ).stdout

    assert llm("prompt", question).strip() == answer.strip()
    assert llm("prompt", question, "--no-stream").strip() == answer.strip()
    talk = llm("chat", said=f"{question}\nE as cores?\nquit\n")
    assert answer.strip() in talk and talk.count("\n> ") == 3
