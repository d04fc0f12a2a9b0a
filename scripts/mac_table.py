"""Writes docs/macs.md and docs/pt/macs.md: what is recommended on recorded Macs for five models.

The machines are those of the tests (tests/preflight/macs.py). The models are written as folders
whose weight files have headers but no data. Both go through the product's own readers and planner.
Nothing is measured: the estimate from the model's shape decides, with its margin.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from safetrain_shared import i18n
from safetrain_shared.findings import Finding
from safetrain_shared.i18n import integer, size
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.messages import say
from safetraind.host import App, macos
from safetraind.models.model_config import ModelFacts, read_model
from safetraind.models.sizes import Sizes
from safetraind.planner import choose_plan
from safetraind.planner.budget import available, budget_for
from safetraind.planner.facts import Disk, Facts
from safetraind.planner.make_room import make_room
from safetraind.planner.option import Question
from safetraind.planner.suggest import smaller_model
from safetraind.worker_messages.inspect_messages import Lengths
from safetraind.worker_messages.probe_messages import Device
from tests.preflight.macs import BUSY_M1_8, BUSY_M2_16, M3_MAX, M4_32, M4_MAX, Mac

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "pt")
PAGES = {"en": ROOT / "docs" / "macs.md", "pt": ROOT / "docs" / "pt" / "macs.md"}
GB, MB = 1 << 30, 1 << 20

# `max_recommended_working_set_size` as other programs print it for Macs of these sizes, in GB.
WORKING_SETS = {8: 5.33, 16: 10.67, 32: 21.33, 64: 48.0, 128: 107.5}
MACS = (BUSY_M1_8, BUSY_M2_16, M4_32, M3_MAX, M4_MAX)
OPEN_APPS = (App("Google Chrome", 2400 * MB), App("Slack", 700 * MB))  # on the first two
# 848 conversations, as many as the original scripts were used with, most of them short.
LENGTHS = ((96, 300), (192, 350), (384, 150), (512, 48))


@dataclass(frozen=True, slots=True)
class Model:
    """A 4-bit model on the hub; `kind`: the `model_type` of its config.json."""

    name: str
    kind: str
    sizes: Sizes


MODELS = (
    Model("Llama-3.2-3B-4bit", "llama", Sizes(28, 3072, 8192, 24, 8, 128, 128256)),
    Model("Qwen3-4B-4bit", "qwen3", Sizes(36, 2560, 9728, 32, 8, 128, 151936)),
    Model("Gemma-3-4b-4bit", "gemma3_text", Sizes(34, 2560, 10240, 8, 4, 256, 262208, window=1024)),
    Model("Mistral-7B-4bit", "mistral", Sizes(32, 4096, 14336, 32, 8, 128, 32768, tied=False)),
    Model("Qwen2.5-14B-4bit", "qwen2", Sizes(48, 5120, 13824, 40, 8, 128, 152064, tied=False)),
)
# Published reports, one a row; without `memory_gb` where the report does not say how large the Mac
# was. Where nobody reports a model on such a machine there is none.
REPORTS = ROOT / "benchmarks" / "published" / "macs.csv"

TEXTS = {
    "en": {
        "title": "What is recommended on which Mac",
        "other": "[Português](pt/macs.md)",
        "opening": (
            "The recommendation for five machines as they were recorded, and five models. "
            "**Nothing here was measured on a Mac**: it is what the planner says before it has "
            "run a step, with the margin of that; on your machine preflight measures. The data "
            "is taken to be 848 conversations of 96 to 512 tokens. The 8 and the 16 GB Mac have a "
            "browser and a messenger open; the others have nothing to speak of. What people report "
            "was measured with other trainers, mostly mlx-lm, on machines of about that size, and "
            "is not checked; GB are there 10⁹ bytes. Where no date stands, the report has none. A "
            "dash stands where none was found by November 2026."
        ),
        "machine": "{chip}, {memory} GB, {available} available",
        "unnamed": "Reported without the size of the machine",
        "unnamed_head": ("model", "what people report"),
        "head": ("model", "recommendation", "why", "what people report"),
        "plan": "batch {batch} × {accumulation}, {length} tokens",
        "peak": "{peak} at the peak, {room} for arrays",
        "generated": "This page is made by `scripts/mac_table.py` (`make mac-table`).",
    },
    "pt": {
        "title": "O que se recomenda em que Mac",
        "other": "[English](../macs.md)",
        "opening": (
            "A recomendação para cinco máquinas tal como foram registadas, e cinco modelos. "
            "**Nada disto foi medido num Mac**: é o que o planeador diz antes de correr um passo, "
            "com a margem respetiva; na sua máquina a verificação prévia mede. Supõem-se "
            "848 conversas de 96 a 512 tokens. Os Macs de 8 e de 16 GB têm um navegador e um "
            "programa de mensagens abertos; os outros, nada que se note. O que as pessoas relatam "
            "foi medido com outros treinadores, quase sempre o mlx-lm, em máquinas mais ou menos "
            "desse tamanho, e não está verificado; ali os GB são 10⁹ bytes. Sem data, o relato não "
            "a tem. Há um traço onde não se encontrou nenhum até novembro de 2026."
        ),
        "machine": "{chip}, {memory} GB, {available} disponíveis",
        "unnamed": "Relatado sem o tamanho da máquina",
        "unnamed_head": ("modelo", "o que as pessoas relatam"),
        "head": ("modelo", "recomendação", "porquê", "o que as pessoas relatam"),
        "plan": "lote {batch} × {accumulation}, {length} tokens",
        "peak": "{peak} no pico, {room} para arrays",
        "generated": "Esta página é feita por `scripts/mac_table.py` (`make mac-table`).",
    },
}


def main() -> int:
    """Write both pages."""
    with tempfile.TemporaryDirectory() as folder:
        models = {model: written(model, Path(folder)) for model in MODELS}
    for lang, path in PAGES.items():
        with i18n.using(lang):
            path.write_text(page(models, lang), encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


def written(model: Model, folder: Path) -> ModelFacts:
    """Return the model's facts by the product's own reader, from a folder with sparse weights."""
    place = folder / model.name
    place.mkdir()
    config = {
        "model_type": model.kind,
        "num_hidden_layers": model.sizes.layers,
        "hidden_size": model.sizes.hidden,
        "intermediate_size": model.sizes.intermediate,
        "num_attention_heads": model.sizes.heads,
        "num_key_value_heads": model.sizes.kv_heads,
        "head_dim": model.sizes.head_dim,
        "vocab_size": model.sizes.vocabulary,
        "quantization": {"group_size": 64, "bits": 4},
    }
    if model.sizes.window:
        config |= {"sliding_window": model.sizes.window, "sliding_window_pattern": 6}
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (place / "tokenizer.json").write_text("{}", encoding="utf-8")
    header, offset = {}, 0
    for name, dtype, shape in _tensors(model):
        bytes_each = 4 if dtype == "U32" else 2
        end = offset + bytes_each * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (place / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    facts = read_model(model.name, place)
    assert facts.shape is not None, facts
    return facts


def _tensors(model: Model) -> Iterator[tuple[str, str, list[int]]]:
    """Yield names, types and shapes of the tensors of a 4-bit model in groups of 64."""
    queries, keys = (
        model.sizes.heads * model.sizes.head_dim,
        model.sizes.kv_heads * model.sizes.head_dim,
    )
    matrices = {
        "self_attn.q_proj": (queries, model.sizes.hidden),
        "self_attn.k_proj": (keys, model.sizes.hidden),
        "self_attn.v_proj": (keys, model.sizes.hidden),
        "self_attn.o_proj": (model.sizes.hidden, queries),
        "mlp.gate_proj": (model.sizes.intermediate, model.sizes.hidden),
        "mlp.up_proj": (model.sizes.intermediate, model.sizes.hidden),
        "mlp.down_proj": (model.sizes.hidden, model.sizes.intermediate),
    }
    whole = {"model.embed_tokens": (model.sizes.vocabulary, model.sizes.hidden)}
    if not model.sizes.tied:
        whole["lm_head"] = (model.sizes.vocabulary, model.sizes.hidden)
    for layer in range(model.sizes.layers):
        whole |= {f"model.layers.{layer}.{name}": shape for name, shape in matrices.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{norm}.weight", "BF16", [model.sizes.hidden]
    yield "model.norm.weight", "BF16", [model.sizes.hidden]
    for name, (rows, columns) in whole.items():
        yield f"{name}.weight", "U32", [rows, columns // 8]
        for kind in ("scales", "biases"):
            yield f"{name}.{kind}", "BF16", [rows, columns // 64]


def page(models: dict[Model, ModelFacts], lang: str) -> str:
    """Return the page in `lang`."""
    texts = TEXTS[lang]
    lines = [f"# {texts['title']}", "", str(texts["other"]), "", str(texts["opening"]), ""]
    for mac in MACS:
        machine = macos.gather(mac.run())
        told = {"chip": mac.chip, "memory": mac.memory_gb, "available": size(machine.memory_free)}
        lines += [f"## {str(texts['machine']).format(**told)}", ""]
        lines += [f"| {' | '.join(texts['head'])} |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(_row(mac, m, facts, lang))} |" for m, facts in models.items()]
        lines.append("")
    lines += [f"## {texts['unnamed']}", "", f"| {' | '.join(texts['unnamed_head'])} |", "|---|---|"]
    lines += [f"| {model.name} | {reported(None, model.name, lang)} |" for model in models]
    return "\n".join([*lines, "", str(texts["generated"]), ""])


@cache
def reports() -> dict[tuple[int | None, str], list[dict[str, str]]]:
    """Return the published reports by GB of the Mac (None: not said) and model."""
    found: dict[tuple[int | None, str], list[dict[str, str]]] = {}
    with REPORTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            memory = int(row["memory_gb"]) if row["memory_gb"] else None
            found.setdefault((memory, row["model"]), []).append(row)
    return found


def reported(memory_gb: int | None, model: str, lang: str) -> str:
    """Return what is reported, each with its source and, where it is known, its date."""
    said = [
        f"{row[lang]} ({', '.join(part for part in (row['source'], row['date']) if part)})"
        for row in reports().get((memory_gb, model), [])
    ]
    return "; ".join(said) or "–"


def _row(mac: Mac, model: Model, known: ModelFacts, lang: str) -> list[str]:
    facts = _facts(mac, known)
    question = _question(facts)
    answer = choose_plan.plan(question)
    if isinstance(answer, Plan):
        cells = [_recommended(answer, lang), _reasons(answer, question, lang)]
    else:
        apps = OPEN_APPS if mac in MACS[:2] else ()
        helps = make_room(answer, question.spec, facts, apps) + smaller_model(answer, question)
        cells = ["–", " ".join(f"{say(finding)}." for finding in [answer, *helps])]
    return [model.name, *cells, reported(mac.memory_gb, model.name, lang)]


def _facts(mac: Mac, model: ModelFacts) -> Facts:
    device = Device(
        "metal",
        name=mac.chip,
        memory=mac.memory_gb * GB,
        working_set=int(WORKING_SETS[mac.memory_gb] * GB),
    )
    disk = Disk("/out", 100 * GB, 100 * GB, same_disk=True)
    return Facts(macos.gather(mac.run()), disk, model, device=device)


def _question(facts: Facts) -> Question:
    spec = JobSpec(facts.model.name, "/train.jsonl", "/valid.jsonl", "/out")
    tops = [(tokens, tokens // 2) for tokens, count in LENGTHS for _ in range(min(count, 64))]
    lengths = Lengths(
        tokens=LENGTHS,
        answers=tuple((tokens // 2, count) for tokens, count in LENGTHS),
        longest=LENGTHS[-1][0],
        tops=tuple(sorted(tops, reverse=True)),
    )
    assert facts.model.shape is not None and facts.device is not None
    return Question(
        spec=spec,
        shape=facts.model.shape,
        quantized=True,
        model_path="/model",
        lengths=lengths,
        samples=sum(count for _, count in LENGTHS),
        text_only=False,
        available=available(spec, facts),
        budget=budget_for(spec, facts),
        device="metal",
        valid=dataclasses.replace(lengths),
    )


def _recommended(plan: Plan, lang: str) -> str:
    settings = plan.settings
    told = {
        "batch": settings.batch_size,
        "accumulation": settings.gradient_accumulation,
        "length": integer(settings.max_seq_length, lang),
    }
    parts = [str(TEXTS[lang]["plan"]).format(**told)]
    if settings.gradient_checkpointing:
        parts.append("gradient_checkpointing")
    if settings.loss_chunk:
        parts.append(f"loss_chunk={settings.loss_chunk}")
    return ", ".join(parts)


def _reasons(plan: Plan, question: Question, lang: str) -> str:
    """Return the first reasons as sentences, then the numbers."""
    told = {"peak": size(plan.predicted_peak, lang), "room": size(question.budget.mlx, lang)}
    said = [say(reason) for reason in plan.reasons if _decides(reason)]
    return " ".join(
        f"{text.rstrip('.')}." for text in [*said, str(TEXTS[lang]["peak"]).format(**told)]
    )


def _decides(reason: Finding) -> bool:
    """Whether the reason is about this machine rather than about the data."""
    return reason.code.startswith(
        ("tier.", "plan.checkpointing", "plan.loss_chunk", "plan.shorten")
    )


if __name__ == "__main__":
    raise SystemExit(main())
