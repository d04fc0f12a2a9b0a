"""The page: whole, escaped, readable by machines that read aloud, and without a network."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from safetrain import inputs
from safetrain.mlx_lm_config import Config
from safetrain.report.preflight_facts import read_facts
from safetrain.report.report_page import Contents, Sample, page
from safetrain.report.svg import ticks
from safetrain.views import rerun_command
from safetrain.views.answer import Answer
from safetrain_proto.v1 import answers_pb2, jobs_pb2
from safetrain_shared import i18n
from safetrain_shared.codec import to_plain
from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import FIELDS
from safetrain_shared.wire import finding_to_wire, spec_from_wire
from tests.report import runs
from tests.report.served import a_job, a_plan

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """A page as a flat list of elements; complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if tag in tags]


def answer(text: str) -> Answer:
    return Answer(parts=[text], done=answers_pb2.AnswerDone(tokens=5))


def contents(**changes: Any) -> Contents:
    given: dict[str, Any] = {
        "job": a_job("/out"),
        "events": runs.eventful(),
        "made": runs.STARTED,
        "version": "0.1.0",
        "machine": "macOS 15 · arm64",
        "samples": [Sample("Quem?", answer("a <i>base</i>"), answer("Um.\n\nDois."))],
    }
    return Contents(**{**given, **changes})


@pytest.fixture(scope="module")
def whole() -> Page:
    return Page(page(contents()))


def test_it_needs_no_network_and_runs_nothing(whole: Page) -> None:
    assert not whole.all("script", "link", "img", "iframe", "object")
    links = [attrs["href"] for attrs in whole.all("a")]
    assert links
    assert all(sink and sink.startswith("#") for sink in links)
    assert "url(" not in whole.text
    assert "@import" not in whole.text
    policy = next(m for m in whole.all("meta") if m.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_headings_come_in_order_and_under_one_title(whole: Page) -> None:
    levels = [int(tag[1]) for tag, _ in whole.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_names_that_point_somewhere_find_it_once(whole: Page) -> None:
    names = [attrs["id"] for _, attrs in whole.elements if "id" in attrs]
    assert len(names) == len(set(names))
    targets = [str(attrs["href"])[1:] for attrs in whole.all("a")]
    for _, attrs in whole.elements:
        targets += (attrs.get("aria-labelledby") or "").split()
    assert set(targets) <= set(names)


def test_pictures_are_named_and_told_in_words(whole: Page) -> None:
    charts = [attrs for attrs in whole.all("svg") if attrs.get("class") == "chart"]
    assert len(charts) == len(whole.all("figure")) == 4
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in charts)
    others = [attrs for attrs in whole.all("svg") if attrs.get("class") != "chart"]
    assert all(attrs["aria-hidden"] == "true" for attrs in others)
    assert "1.135 at step 600" in whole.text


def test_tables_say_what_their_cells_belong_to(whole: Page) -> None:
    assert len(whole.all("table")) == len(whole.all("caption")) == 5
    assert all(attrs["scope"] in ("col", "row") for attrs in whole.all("th"))


def test_what_others_wrote_stays_text(whole: Page) -> None:
    assert "leões &lt;script&gt;&#34;&amp;" in whole.text
    assert "&lt;b&gt;reason&lt;/b&gt;" in whole.text
    assert "a &lt;i&gt;base&lt;/i&gt;" in whole.text
    assert "<p>Um.</p><p>Dois.</p>" in whole.text


def test_it_tells_what_happened(whole: Page) -> None:
    assert "checkpoint_epoch_1_step_108 is damaged" in whole.text
    assert "Bytes 1200 to 1330" in whole.text
    assert "ran out of memory" in whole.text
    assert "checkpoint_epoch_2_step_176" in whole.text
    assert "in 2 attempts" in whole.text


def test_in_portuguese_it_says_so() -> None:
    with i18n.using("pt"):
        text = page(contents())
    assert '<html lang="pt-PT">' in text
    assert "1,135" in text
    assert '<html lang="en">' in page(contents())


def test_every_setting_has_its_value_chooser_and_meaning(whole: Page) -> None:
    for name in FIELDS:
        assert f'<th scope="row">{name}</th>' in whole.text
    assert '<th scope="row">learning_rate</th><td>0.0002</td><td>you</td>' in whole.text
    assert '<th scope="row">batch_size</th><td>1</td><td>the plan</td>' in whole.text
    assert '<th scope="row">lora_rank</th><td>8</td><td>default</td>' in whole.text


@pytest.mark.parametrize("state", ["JOB_STATE_CHECKING", "JOB_STATE_RUNNING", "JOB_STATE_QUEUED"])
def test_before_the_first_step_there_is_a_page_too(state: str) -> None:
    job = a_job("/out", state=state, step=0, finished=0, attempt=0)
    job.ClearField("plan")
    text = Page(page(contents(job=job, events=[], samples=[]))).text
    assert "No step has been logged yet." in text
    assert "No checkpoint has been saved yet." in text
    assert 'id="answers"' not in text


def test_a_failed_job_says_why() -> None:
    cause = finding_to_wire(Finding("job.out_of_memory", Status.FAILED))
    job = a_job("/out", state=jobs_pb2.JOB_STATE_FAILED, cause=cause)
    assert '<p class="cause">The training ran out of memory.</p>' in page(contents(job=job))


def test_the_preflight_of_this_job_tells_machine_and_data() -> None:
    spec = spec_from_wire(a_job("/out").spec)
    text = page(contents(measured=read_facts(preflight(to_plain(spec)), spec)))
    assert "Apple Silicon (Apple M1) detected" in text
    assert "said by a newer one" in text
    assert "<td>90</td><td>200</td><td>512</td>" in text
    assert "macOS 15 · arm64" not in text
    assert "&lt;|user|&gt;<mark>&lt;i&gt;Faro</mark>" in text


def test_the_preflight_of_another_job_or_a_broken_one_is_passed_over() -> None:
    spec = spec_from_wire(a_job("/out").spec)
    other = {**to_plain(spec), "train": "/other.jsonl"}
    assert read_facts(preflight(other), spec) is None
    for broken in (
        None,
        [],
        {},
        {"spec": to_plain(spec)},
        {"spec": to_plain(spec), "findings": [1]},
    ):
        assert read_facts(broken, spec) is None


def preflight(spec: dict[str, Any]) -> dict[str, Any]:
    machine = Finding(
        "hardware.apple_silicon", Status.PASSED, args={"chip": "Apple M1"}, section="hardware"
    )
    newer = Finding("data.of_a_newer_version", Status.WARNING, section="data")
    tokens = [[512, 48], [40, 200], [90, 400], [200, 200]]
    file = {"path": spec["train"], "format": "chat", "samples": 848, "size": 1234}
    pieces = [{"text": "<|user|>", "learned": False}, {"text": "<i>Faro\x1b", "learned": True}]
    file["preview"] = [{"pieces": pieces}]
    findings = [to_plain(machine), {**to_plain(newer), "text": "said by a newer one"}]
    facts = {"data": {"train": {**file, "lengths": {"tokens": tokens}}, "valid": None}}
    return {"spec": spec, "findings": findings, "facts": facts, "time": "2025-10-09T13:00:00Z"}


def test_the_exact_command_gives_the_plan_back() -> None:
    spec = spec_from_wire(a_job("/out").spec)
    words = rerun_command.pinned(spec, a_plan().settings).replace("\\\n", "").split()
    pairs = [after for word, after in itertools.pairwise(words) if word == "--set"]
    assert inputs.settings(Config(), pairs) == to_plain(a_plan().settings) | {"lora_targets": ()}
    assert inputs.memory(words[words.index("--memory-budget") + 1]) == spec.memory_budget


def test_the_command_as_asked_is_safe_to_paste() -> None:
    command = rerun_command.as_asked(spec_from_wire(a_job("/my out").spec), a_plan().settings)
    assert "--output '/my out'" in command
    assert "--name 'leões <script>\"&'" in command
    assert "--set seed=7" in command
    assert "batch_size" not in command


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 6.5, [0, 2, 4, 6]), (0.84, 2.65, [1, 1.5, 2, 2.5]), (0.0, 2e-4, 5)],
)
def test_ticks_are_round(low: float, high: float, expected: list[float] | int) -> None:
    found = ticks(low, high, 5)
    if isinstance(expected, int):
        assert len(found) == expected
    else:
        assert found == expected


def test_template_and_style_lie_beside_the_code() -> None:
    import safetrain.report.report_page as module

    beside = Path(module.__file__).parent
    assert (beside / "report.html").is_file()
    assert (beside / "report.css").is_file()
