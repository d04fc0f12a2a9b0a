from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import safetraind
from safetrain_shared.findings import SECTIONS, Finding, Status
from safetrain_shared.i18n import translate
from safetrain_shared.messages import SENTENCES, say
from safetraind.host import HostFacts, macos
from safetraind.models.model_config import ModelFacts
from safetraind.planner.degree import Degree
from safetraind.planner.facts import Data, Disk, Facts
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import CHECKS, of_section
from safetraind.preflight.inspection import Problems
from safetraind.worker_messages.inspect_messages import InspectLine, Lengths, Package
from safetraind.worker_messages.probe_messages import Device, Loaded
from tests.preflight.facts import GB, LINUX, MAC, MB, METAL, MODEL, SPEC, data_file, facts
from tests.preflight.macs import M1_AIR, UNDER_ROSETTA


def judged(known: Facts, **spec: Any) -> list[Finding]:
    return list(carry_out(CHECKS, dataclasses.replace(SPEC, **spec), known, set()))


def codes(known: Facts, *statuses: Status, **spec: Any) -> set[str]:
    return {f.code for f in judged(known, **spec) if not statuses or f.status in statuses}


def test_nothing_is_wrong_where_everything_is_well() -> None:
    assert codes(facts(), Status.FAILED, Status.WARNING, Status.SKIPPED) == set()


@pytest.mark.parametrize("learned", [False, True])
def test_samples_beyond_the_models_positions_are_told(learned: bool) -> None:
    """What a vector for each position has no vector for cannot be trained; others guess."""
    model = dataclasses.replace(MODEL, positions=64, learned_positions=learned)
    known = facts(model=model)
    longer = [f for f in judged(known) if f.code == "data.beyond_positions"]
    assert [f.status for f in longer] == [Status.FAILED if learned else Status.WARNING] * 2
    assert longer[0].args == {"name": "train.jsonl", "count": 448, "positions": 64, "longest": 90}
    assert "max_seq_length=64" in say(longer[0], lang="en")
    assert "data.beyond_positions" not in codes(known, settings={"max_seq_length": 64})
    for positions in (0, 90):
        fits = facts(model=dataclasses.replace(model, positions=positions))
        assert "data.beyond_positions" not in codes(fits)


def test_keys_that_mlx_lm_does_not_read_are_told_and_stop_nothing() -> None:
    data = Data(data_file(), data_file("/d/valid.jsonl"), dropped_keys=("gate", "notes"))
    (told,) = (f for f in judged(facts(data=data)) if f.code == "model.keys_dropped")
    assert told.status is Status.INFO and "gate, notes" in say(told, lang="en")


def test_findings_come_in_the_documents_order_of_sections() -> None:
    found = [SECTIONS.index(finding.section) for finding in judged(facts())]
    assert found == sorted(found) and set(found) == set(range(6))
    assert [c for section in SECTIONS for c in of_section(section)] == list(CHECKS)


def test_a_check_needs_only_checks_before_it() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= seen
        assert check.name not in seen
        seen.add(check.name)


def test_the_lines_of_the_users_document_come_out() -> None:
    """In their order and form; a word or two is spelt as in Portugal today."""
    said = {say(f, lang="pt").replace("\N{NO-BREAK SPACE}", " ") for f in judged(facts())}
    memory = MAC.memory_available / GB
    assert {
        "Apple Silicon (M1 Pro) detetado",
        f"Memória: {memory:.1f} GiB disponíveis".replace(".", ","),
        "CPU: 8 núcleos",
        "Metal GPU detetado e ativado",
        "Ficheiro de treino: train.jsonl (848 amostras)",
        "Ficheiro de validação: valid.jsonl (95 amostras)",
        "Modelo base encontrado (540,0 MiB)",
        "Modelo carregado com sucesso",
        "Espaço em disco suficiente (100,0 GiB)",
    } <= said


PARTLY = Finding("data.partly_compared", args={"path": "/d/valid.jsonl", "samples": 9, "near": 3})
WRONG: dict[str, tuple[dict[str, Any], str, Status]] = {
    "a Python under Rosetta": (
        {"host": macos.gather(UNDER_ROSETTA.run())},
        "hardware.rosetta",
        Status.FAILED,
    ),
    "an Intel Mac": (
        {"host": HostFacts("Darwin", architecture="x86_64", chip="Intel", memory_free=8 * GB)},
        "hardware.intel_mac",
        Status.FAILED,
    ),
    "a Linux machine": ({"host": LINUX}, "hardware.other", Status.WARNING),
    "little memory": (
        {"host": dataclasses.replace(LINUX, memory_free=MB)},
        "hardware.memory_short",
        Status.FAILED,
    ),
    "a tight control group": (
        {"host": dataclasses.replace(LINUX, memory_limit=GB, limit_used=GB - MB)},
        "hardware.memory_short",
        Status.FAILED,
    ),
    "memory pressure": (
        {"host": macos.gather(M1_AIR.run())},
        "hardware.pressure",
        Status.WARNING,
    ),
    "much swap": (
        {"host": dataclasses.replace(LINUX, swap_used=3 * GB)},
        "hardware.swap",
        Status.WARNING,
    ),
    "an old macOS": (
        {"host": dataclasses.replace(MAC, system_version="13.6.1")},
        "hardware.old_macos",
        Status.FAILED,
    ),
    "a battery": ({"host": macos.gather(M1_AIR.run())}, "hardware.battery", Status.WARNING),
    "an old Python": ({"python": "3.10.12"}, "dependencies.old_python", Status.FAILED),
    "a broken package": (
        {"packages": {"mlx": Package("", "ImportError: no")}},
        "dependencies.missing",
        Status.FAILED,
    ),
    "an untried version": (
        {"packages": {"mlx": Package("0.40.0")}},
        "dependencies.untried",
        Status.WARNING,
    ),
    "no compiler": ({"host": LINUX, "compiler": ""}, "dependencies.no_compiler", Status.WARNING),
    "no BLAS": ({"host": LINUX, "openblas": ""}, "dependencies.no_blas", Status.WARNING),
    "a CPU on a Mac": ({"device": Device("cpu")}, "gpu.cpu_on_mac", Status.WARNING),
    "a device that miscounts": (
        {"device": Device("metal", works=False, reason="2 + 2 = 5")},
        "gpu.broken",
        Status.FAILED,
    ),
    "no data": ({"data": None}, "data.not_read", Status.FAILED),
    "an empty file": (
        {"data": Data(data_file(samples=0), data_file())},
        "data.no_samples",
        Status.FAILED,
    ),
    "a file that could not be read": (
        {"data": Data(data_file(), None)},
        "data.not_read",
        Status.FAILED,
    ),
    "a file too large to be compared": (
        {"data": Data(data_file(), data_file(), problems=(PARTLY,))},
        "data.partly_compared",
        Status.INFO,
    ),
    "bad lines": ({"data": Data(data_file(errors=3), data_file())}, "data.errors", Status.FAILED),
    "odd lines": (
        {"data": Data(data_file(warnings=2), data_file())},
        "data.warnings",
        Status.WARNING,
    ),
    "repeats": (
        {"data": Data(data_file(warnings=2, counts={"data.duplicate": 2}), data_file())},
        "data.duplicates",
        Status.WARNING,
    ),
    "leaks": (
        {"data": Data(data_file(warnings=1, counts={"data.leak": 1}), data_file())},
        "data.leaks",
        Status.WARNING,
    ),
    "near leaks": (
        {"data": Data(data_file(warnings=1, counts={"data.near_leak": 1}), data_file())},
        "data.near_leaks",
        Status.WARNING,
    ),
    "a template that refuses": (
        {
            "data": Data(
                data_file(lengths=Lengths(((9, 1),), ((4, 1),), 9, failed=1, reason="no")),
                data_file(),
            )
        },
        "data.template",
        Status.FAILED,
    ),
    "a broken tokenizer": (
        {"data": Data(data_file(), data_file(), tokenizer_reason="no")},
        "data.no_tokenizer",
        Status.FAILED,
    ),
    "an incomplete model": (
        {"model": ModelFacts("m", "/m", missing=("model.safetensors",))},
        "model.incomplete",
        Status.FAILED,
    ),
    "an unreadable model": (
        {"model": ModelFacts("m", "/m", reason="cut off")},
        "model.unreadable",
        Status.FAILED,
    ),
    "a model of unknown shape": (
        {"model": dataclasses.replace(MODEL, shape=None)},
        "model.no_shape",
        Status.FAILED,
    ),
    "an unknown architecture": (
        {"model": dataclasses.replace(MODEL, model_type="x", known=False)},
        "model.unknown_architecture",
        Status.FAILED,
    ),
    "a model that needs its own code": (
        {"model": dataclasses.replace(MODEL, known=False, own_code=True)},
        "model.needs_code",
        Status.FAILED,
    ),
    "code that is not needed": (
        {"model": dataclasses.replace(MODEL, own_code=True)},
        "model.code_unused",
        Status.WARNING,
    ),
    "a model that doesn't load": (
        {"loaded": Loaded(0.0, cause=Finding("model.unreadable", args={"path": "/m"}))},
        "model.unreadable",
        Status.FAILED,
    ),
    "an output that can't be written": (
        {"disk": Disk("/d", GB, GB, same_disk=True, unwritable="denied")},
        "path.unwritable",
        Status.FAILED,
    ),
    "a full disk": ({"disk": Disk("/d", MB, MB, same_disk=True)}, "disk.short", Status.FAILED),
    "no room for the download": (
        {
            "disk": Disk("/d", GB, GB, same_disk=True),
            "model": ModelFacts("m", download=4 * GB),
        },
        "disk.no_room_for_model",
        Status.FAILED,
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_check_notices(what: str) -> None:
    changes, code, status = WRONG[what]
    found = [f for f in judged(facts(**changes)) if f.code == code]
    assert found and {f.status for f in found} == {status}
    assert code not in codes(facts())
    soft = code == "disk.short"
    assert all(f.blocks == (status is Status.FAILED and not soft) for f in found)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/Users/a/Documents/out", "disk.private_folder"),
        ("/Users/a/Desktop/x/out", "disk.private_folder"),
        ("/Users/a/Library/Mobile Documents/com~apple~CloudDocs/out", "disk.cloud_folder"),
    ],
)
def test_folders_that_macos_closes_are_named(path: str, code: str) -> None:
    assert code in codes(facts(), Status.WARNING, output=path)
    assert code not in codes(facts(), output="/Users/a/work/out")
    assert code not in codes(facts(host=LINUX), output=path)


def test_of_all_problems_those_that_block_and_the_first_of_each_kind_are_kept() -> None:
    def line(code: str, number: int, **more: Any) -> InspectLine:
        args = {"path": "/d/train.jsonl", "line": number}
        return InspectLine(problem=Finding(code, Status.FAILED, args=args, **more))

    problems = Problems()
    for number in range(1000):
        problems.note(line("data.not_json", number))
    problems.note(line("data.no_answer", 1001))
    problems.note(line("data.no_answer", 1002))
    problems.note(line("path.missing", 0, blocks=True))
    problems.note(InspectLine(counting="/d/train.jsonl"))
    assert [problem.code for problem in problems.kept[99:]] == [
        "data.not_json",
        "data.no_answer",
        "path.missing",
    ]


def test_dependents_of_a_failed_check_are_skipped_and_no_others() -> None:
    known = facts(model=ModelFacts("m", "/m", missing=("config.json",)))
    skipped = {f.args["check"] for f in judged(known) if f.status is Status.SKIPPED}
    unread = {"architecture", "code", "quantization", "licence", "loading", "model_keys", "targets"}
    assert skipped == unread


def test_allowed_code_is_a_warning() -> None:
    known = facts(model=dataclasses.replace(MODEL, known=False, own_code=True))
    assert "model.code_trusted" in codes(known, Status.WARNING, trust_remote_code=True)


def test_a_small_budget_leaves_the_judgement_to_the_planner() -> None:
    little = facts(host=dataclasses.replace(LINUX, memory_free=600 * MB))
    assert "hardware.memory_short" in codes(little, Status.FAILED)
    assert "hardware.memory_short" not in codes(little, memory_budget=500 * MB)
    assert "hardware.memory_short" in codes(little, memory_budget=4 * GB)


def test_a_budget_above_the_machine_is_told() -> None:
    assert "hardware.budget_above" in codes(
        facts(host=LINUX), Status.WARNING, memory_budget=64 * GB
    )
    within = codes(facts(host=LINUX), memory_budget=4 * GB)
    assert "hardware.memory_budget" in within and "hardware.budget_above" not in within


def test_the_limits_of_the_device_are_told_with_its_resources() -> None:
    known = facts(device=dataclasses.replace(METAL, resources=499_000))
    (told,) = (f for f in judged(known) if f.code == "gpu.limits")
    assert "499,000" in say(told, lang="en") and "499" in say(told, lang="pt")


def test_lengths_tell_what_each_common_length_would_cut() -> None:
    lengths = Lengths(((100, 10), (300, 5)), ((60, 10), (260, 5)), 300, scale=2.0)
    known = facts(data=Data(data_file(lengths=lengths), data_file()))
    cuts = [f.args for f in judged(known) if f.code == "data.would_cut"]
    assert [(c["length"], c["cut"], c["lost"]) for c in cuts] == [(128, 10, 10), (256, 10, 10)]


def test_every_code_in_the_source_has_a_sentence_in_both_languages() -> None:
    root = Path(safetraind.__file__).parent
    rooms = [root / name for name in ("preflight", "planner", "models")]
    texts = [path.read_text() for room in rooms for path in room.rglob("*.py")]
    pattern = r'"((?:hardware|dependencies|gpu|data|disk|plan|tier|check)\.[a-z_]+)"'
    used = {code for text in texts for code in re.findall(pattern, text)}
    used |= {code for text in texts for code in re.findall(r'"(model\.[a-z_]+)"', text)}
    used -= {"model.safetensors", "plan.refused"}  # a file, a prefix of codes
    used |= {f"plan.{degree.word}" for degree in Degree}
    assert len(used) > 70
    for code in used:
        assert code in SENTENCES
        if not SENTENCES[code].startswith(
            ("{name} {version}", "CPU: {cores", "GPU: {cores", "macOS")
        ):
            assert translate(SENTENCES[code], "pt") != SENTENCES[code], code
