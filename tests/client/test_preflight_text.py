"""The preflight sheet has the layout of the user's document, in both languages."""

from __future__ import annotations

import json

import pytest

from safetrain.cli import main
from safetrain_proto.v1 import preflight_pb2
from safetrain_shared import wire
from safetrain_shared.findings import SECTIONS, Finding, Status
from tests.client.builders import plan
from tests.client.fake import FakeDaemon

ENGLISH = """\
================================================================================
  PREFLIGHT CHECK - LLM TRAINING
================================================================================

>>> 1. HARDWARE CHECK
  ✓ Paused as asked.

>>> 2. DEPENDENCIES CHECK

>>> 3. GPU CHECK

>>> 4. DATA CHECK
  ⚠ 3 samples were left out: their whole answer lies beyond 256 tokens.

>>> 5. MODEL CHECK

>>> 6. DISK SPACE CHECK
  ✗ The disk is full: the run waits at its last checkpoint for room. (not critical)

>>> 7. RECOMMENDED CONFIGURATION
  RECOMMENDED CONFIGURATION:
  • batch_size: 1
  • gradient_accumulation: 4
  • max_seq_length: 256
  • learning_rate: 0.0002
  • num_epochs: 3
  • lora_layers: 8

  REASON: Stopped early: 2 evaluations brought no improvement.
  Duration: about 10 min for 100 steps

================================================================================
  SUMMARY OF THE PREFLIGHT CHECK
================================================================================
  ✓ Passed: 16
  ✗ Failed: 1 (disk space - not critical)
  ⚠ Warnings: 1 (data)

✓ Report saved: out/preflight_report.json
✓ Config saved: out/recommended_config.json
"""
PORTUGUESE_TITLES = """\
>>> 1. VERIFICAÇÃO DE HARDWARE
>>> 2. VERIFICAÇÃO DE DEPENDÊNCIAS
>>> 3. VERIFICAÇÃO DE GPU
>>> 4. VERIFICAÇÃO DE DADOS
>>> 5. VERIFICAÇÃO DE MODELO
>>> 6. VERIFICAÇÃO DE ESPAÇO EM DISCO
>>> 7. RECOMENDAÇÃO DE CONFIGURAÇÃO
  CONFIGURAÇÃO RECOMENDADA:
  • learning_rate: 0.0002
  RESUMO DA VERIFICAÇÃO PRÉVIA
  ✓ Passaram: 16
  ✗ Falhas: 1 (espaço em disco - não crítico)
  ⚠ Avisos: 1 (dados)
✓ Relatório guardado: out/preflight_report.json
✓ Configuração guardada: out/recommended_config.json
"""


@pytest.fixture(autouse=True)
def _sheet(daemon: FakeDaemon) -> None:
    findings = {
        "hardware": Finding("job.paused_by_user", Status.PASSED, section="hardware"),
        "data": Finding(
            "train.left_out", Status.WARNING, args={"count": 3, "length": 256}, section="data"
        ),
        "disk": Finding("train.disk_full", Status.FAILED, section="disk"),
    }
    for name in SECTIONS:
        section = preflight_pb2.SectionStarted(section=name)
        daemon.sheet.append(preflight_pb2.PreflightEvent(section=section))
        if name in findings:
            finding = wire.finding_to_wire(findings[name])
            daemon.sheet.append(preflight_pb2.PreflightEvent(finding=finding))
    chosen = plan(batch_size=1, gradient_accumulation=4, max_seq_length=256, lora_layers=8)
    advice = preflight_pb2.Recommendation(plan=wire.plan_to_wire(chosen), measured=True)
    daemon.sheet.append(preflight_pb2.PreflightEvent(recommendation=advice))
    daemon.sheet.append(preflight_pb2.PreflightEvent(summary=_summary()))


def _summary(*, blocked: bool = False) -> preflight_pb2.PreflightSummary:
    return preflight_pb2.PreflightSummary(
        passed=16,
        failed=1,
        warnings=1,
        blocked=blocked,
        report_path="out/preflight_report.json",
        config_path="out/recommended_config.json",
    )


def test_the_sheet_in_english(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight"]) == 0
    assert capsys.readouterr().out == ENGLISH


def test_the_sheet_in_portuguese_has_the_documents_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["preflight", "--lang", "pt"]) == 0
    out = capsys.readouterr().out.splitlines()
    lines = iter(out)
    assert all(title in lines for title in PORTUGUESE_TITLES.splitlines()), out


def test_what_blocks_gives_exit_code_4(daemon: FakeDaemon) -> None:
    daemon.sheet[-1].summary.CopyFrom(_summary(blocked=True))
    assert main(["preflight"]) == 4


def test_as_json_it_is_one_event_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["section"] == {"section": "hardware"}
    assert events[-1]["summary"]["passed"] == 16
    advice = events[-2]["recommendation"]
    assert advice["plan"]["settings"]["batch_size"] == 1
    assert advice["plan"]["reasons"][0]["text"].startswith("Stopped early")
