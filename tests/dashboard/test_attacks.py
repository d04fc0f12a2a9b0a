"""What an attacker could try on the page: files that are too large, names and texts, paths."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain.page.begin_form import prepare_request
from safetrain.page.uploads import MOST_BYTES, NAME_HEADER
from safetrain_proto.v1.data_pb2 import PreviewPiece, PreviewResponse, PreviewSample
from safetrain_shared.errors import InvalidInput
from safetrain_shared.events import Notice
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.client.builders import complete_run, event, job
from tests.client.fake import FakeDaemon
from tests.dashboard.conftest import ACTION, Served

EVIL = (
    "</textarea></title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7777}}\x1b[2J"
)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    """A scripted daemon, all of whose texts are hostile."""
    fake = FakeDaemon(Home(tmp_path_factory.mktemp("home")))
    notice = Finding("no.such_code", Status.WARNING, args={"name": EVIL})
    jobs = [
        job(1, JobState.FAILED, name=EVIL, last_seq=20, step=3, total_steps=9),
        job(2, JobState.QUEUED, name=EVIL, queue_position=1),
        job(3, JobState.QUEUED, name=EVIL, queue_position=2),
    ]
    for one in jobs:
        one.spec.model = one.spec.train = one.spec.output = f"/d/{EVIL}"
        one.phase = one.intent = EVIL
        one.cause.code, one.cause.text = "no.such_code", EVIL
    pieces = [PreviewPiece(text=EVIL), PreviewPiece(text=EVIL, learned=True)]
    fake.preview = PreviewResponse(samples=[PreviewSample(pieces=pieces)])
    fake.jobs, fake.events = jobs, [*complete_run(), event(20, Notice(notice))]
    fake.ended.set()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def page(scripted: FakeDaemon) -> Iterator[Served]:
    served = Served(home=scripted.home)
    yield served
    served.end()


def test_nothing_that_a_job_or_its_data_say_becomes_markup(page: Served) -> None:
    cookie = page.cookie()
    texts = [
        page.get(path, Cookie=cookie)[2]
        for path in (
            "/jobs/1",
            "/jobs/2",
            "/compare?job=1",
            "/jobs/1/samples",
            "/compare/chart?job=1",
        )
    ]
    for name, data in page.live(1):
        texts.append(data if isinstance(data, str) else json.dumps(data))
        if name == "curves":
            break
    shown = "".join(texts)
    assert shown.count("&lt;script&gt;alert(1)") > 20
    for wrong in ("<script>alert", "<img src=x", "54439", "\x1b"):
        assert wrong not in shown, wrong


def uploaded(
    page: Served, name: str, body: bytes | Iterator[bytes], size: int = -1
) -> tuple[int, str]:
    """Status and text of an upload; `size`: the length that its header tells."""
    cookie = page.cookie()
    tokens = {
        at: {key: token} for at, key, token in ACTION.findall(page.get("/begin", Cookie=cookie)[2])
    }
    headers = {
        "Host": page.host,
        "Origin": f"http://{page.host}",
        "Cookie": cookie,
        "HX-Request": "true",
        NAME_HEADER: name,
        **({"Content-Length": str(size)} if size >= 0 else {}),
        **tokens["/begin/upload"],
    }
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    connection.request("POST", "/begin/upload", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_file_that_is_too_large_is_refused_before_it_is_read(page: Served) -> None:
    status, text = uploaded(page, "big.csv", b"a", size=MOST_BYTES + 1)
    assert status == 400 and "too large" in text
    assert "is empty" in uploaded(page, "none.csv", b"")[1]


@pytest.mark.parametrize(
    "name", ["", "..%2F..%2Fetc%2Fpasswd", ".profile", "a%00b", "a%0Ab", "a/b"]
)
def test_a_name_that_leads_elsewhere_is_refused(page: Served, name: str) -> None:
    assert uploaded(page, name, b"a,b\n1,2\n")[0] == 400


def test_no_path_or_number_leads_out_of_the_page(page: Served) -> None:
    cookie = page.cookie()
    for path in (
        "/static/../templates/base.html",
        "/static/%2e%2e/routes.py",
        "/static/vendor/../../access.py",
        "/jobs/../../etc/passwd",
        "/jobs/1%2f..%2f2",
        "/jobs/-1",
        "/jobs/1/log/../../etc",
    ):
        assert page.get(path, Cookie=cookie)[0] in (307, 404), path
    assert page.post("/begin/point", "path=%00")[0] == 400
    assert page.post("/begin/point", "path=/no/such/" + "%3Cscript%3E")[2].count("<script>") == 0
    assert "no data yet" in page.post("/begin/check", "model=demo&train=&valid=")[2]
    with pytest.raises(InvalidInput):
        prepare_request({"file": "/etc/passwd", "digest": "../../x"}, Path("/home"))
    made = prepare_request({"file": "/a/../../b c.csv", "digest": "0" * 64}, Path("/home"))
    assert Path(made.output).parent == Path("/home/data") and " " not in made.output


def test_a_form_that_is_no_form_or_too_long_gets_one_sentence(page: Served) -> None:
    for body in ("a" * 200_000, "&".join(f"a{n}=1" for n in range(1000)), "\xff=1"):
        status, _headers, text = page.post("/begin/point", body)
        assert status == 400 and "Traceback" not in text
