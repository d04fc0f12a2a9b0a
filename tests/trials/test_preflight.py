"""What preflight says of inputs on which a training would go wrong; with real workers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home, private
from safetraind.preflight.inspection import inspection_end
from safetraind.preflight.preflight_run import PreflightRun
from safetraind.processes import ephemeral
from safetraind.processes.ephemeral import EphemeralWorkers, Limit
from safetraind.processes.supervisor import Supervisor
from safetraind.worker_messages.inspect_messages import INSPECT, InspectRequest
from tests.preflight.direct import DirectWorkers
from tests.tiny import make_chat_data, make_tiny_model
from tests.trials import inputs
from tests.trials.inputs import called, jsonl, said, with_tokenizer_config

CHAT = [said(("user", f"{n}?"), ("assistant", f"answer {n}")) for n in range(4)]
LONG = [said(("user", f"{n} " * 60), ("assistant", "yes")) for n in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("m") / "m", layers=1, hidden=32)


def failures(root: Path, model: Path, train: Path, **settings: Any) -> set[str]:
    """The codes of what blocks, by all that needs no GPU: what a submit foresees."""
    valid = jsonl(root / "valid.jsonl", *(CHAT if "text" not in train.name else [{"text": "b"}]))
    spec = JobSpec(str(model), str(train), str(valid), str(root / "out"), settings=settings)
    workers = DirectWorkers(root / "workers", has_lease=False)
    run = PreflightRun(spec, workers, Home(root / "home"), model)

    async def judged() -> None:
        async for _ in run.judged():
            pass

    asyncio.run(judged())
    return {str(f.args.get("cause", f.code)) for f in run.findings if f.blocks}


def test_samples_that_all_lose_their_answer_are_refused(model: Path, tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", *LONG)
    assert failures(tmp_path, model, train, max_seq_length=32) == {"data.all_lose"}


def test_one_json_document_is_one_problem(model: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps(CHAT, indent=2))
    assert failures(tmp_path, model, train) == {"data.json_document"}


@pytest.mark.slow
def test_calls_that_are_dropped_and_targets_that_are_missing_are_refused(
    model: Path, tmp_path: Path
) -> None:
    train = jsonl(tmp_path / "train.jsonl", called({"a": 1}))
    found = failures(tmp_path, model, train, lora_targets=("self_attn.q_proj", "foo"))
    assert found == {"data.calls_dropped", "model.targets_missing"}


@pytest.mark.slow
def test_a_model_without_a_chat_template_is_named(model: Path, tmp_path: Path) -> None:
    folder = with_tokenizer_config(model, tmp_path / "m", chat_template=None)
    assert failures(tmp_path, folder, jsonl(tmp_path / "t.jsonl", *CHAT)) == {
        "data.no_chat_template"
    }


@pytest.mark.slow
def test_tokens_beyond_the_embedding_are_refused(tmp_path: Path) -> None:
    folder = inputs.with_tokens_beyond(tmp_path / "m", "<speaker>")
    train = jsonl(tmp_path / "t.jsonl", said(("user", "a"), ("assistant", "<speaker> b")))
    assert failures(tmp_path, folder, train) == {"data.token_beyond"}


# The sandbox ends a loop beyond 100,000 rounds, not one inside another.
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("limit", "reached"), [(Limit(60.0, memory=1 << 20), "memory"), (Limit(0.0), "time")]
)
def test_a_worker_ends_at_its_limit(
    limit: Limit,
    reached: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ephemeral, "LIMITS", {"inspect": limit})
    train, valid = make_chat_data(tmp_path / "data")
    home = Home(private(tmp_path / "home"))
    endless = with_tokenizer_config(model, tmp_path / "m", chat_template=ENDLESS)
    request = InspectRequest(train=str(train), valid=str(valid), model=str(endless))
    launched = EphemeralWorkers(home, Supervisor(home)).run_worker(INSPECT, request, lease=False)
    ended = asyncio.run(launched)
    assert (ended.limit, ended.result) == (reached, None)
    assert inspection_end(ended).code == f"data.inspection_{reached}"
    assert list((tmp_path / "home").rglob("inspect-*")) == []
