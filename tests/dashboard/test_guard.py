"""Who may look at the live page, and what it may load."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from safetrain.page.access import Keys
from safetrain.page.routes import STATIC
from safetrain.page.server import listening
from safetrain_shared.errors import Busy
from safetrain_shared.paths import Home
from tests.client.fake import FakeDaemon
from tests.dashboard.conftest import ACTION, Serve, Served, other_address
from tests.harness import wait_for

VENDOR = STATIC / "vendor"
EVERYTHING = ("/", "/static/page.js", "/live", "/docs", "/openapi.json")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = Home(tmp_path_factory.mktemp("home"))
    scripted = FakeDaemon(home)
    scripted.start()
    served = Served(home=home)
    yield served
    served.end()
    scripted.stop()


def test_nothing_is_shown_without_the_cookie(page: Served) -> None:
    for path in EVERYTHING:
        assert page.get(path)[0] == 401, path
    assert page.ask("/jobs/1/ask", "POST", "{}", Origin=f"http://{page.host}").status == 401
    text = page.get("/")[2]
    assert "safetrain dashboard" in text and "token" not in text


def test_a_wrong_token_or_cookie_opens_nothing(page: Served) -> None:
    assert page.get("/?token=" + "x" * 43)[0] == 401
    name = page.cookie().partition("=")[0]
    assert page.get("/", Cookie=f"{name}=wrong")[0] == 401
    assert page.get("/", Cookie=f"{name}=é")[0] == 401


def test_the_address_is_exchanged_for_a_cookie_that_scripts_and_other_sites_never_see(
    page: Served,
) -> None:
    token = page.url.partition("token=")[2]
    status, headers, text = page.get(f"/?token={token}")
    assert status == 200 and token not in text
    attributes = headers["set-cookie"].lower()
    assert "httponly" in attributes and "samesite=strict" in attributes
    assert token not in headers["set-cookie"]
    status, headers, text = page.get("/begin", Cookie=page.cookie())
    assert status == 200 and "<title>" in text


def test_a_name_that_is_made_to_resolve_here_is_refused(page: Served) -> None:
    cookie, token = page.cookie(), page.url.partition("token=")[2]
    for host in ("evil.example", f"evil.example:{page.port}", "127.0.0.1", "127.0.0.1:1", ""):
        assert page.get("/", Host=host, Cookie=cookie)[0] == 403, host
        answer = page.get(f"/?token={token}", Host=host)
        assert answer[0] == 403 and "set-cookie" not in answer[1]
    assert page.get("/begin", Host=f"localhost:{page.port}", Cookie=cookie)[0] == 200


def test_another_page_may_neither_read_nor_ask(page: Served) -> None:
    cookie, asked = page.cookie(), "question=Ol%C3%A1"
    for origin in ("https://evil.example", "http://127.0.0.1:1", "null"):
        assert page.get("/live", Cookie=cookie, Origin=origin)[0] == 403, origin
        answer = page.ask("/jobs/1/ask", "POST", asked, Cookie=cookie, Origin=origin)
        assert answer.status == 403, origin
    assert page.ask("/jobs/1/ask", "POST", asked, Cookie=cookie).status == 403  # no Origin at all
    for site in ("cross-site", "same-site"):  # same-site: another port of this host
        assert page.get("/", Cookie=cookie, Sec_Fetch_Site=site)[0] == 403


def test_every_answer_forbids_what_is_not_our_own(page: Served) -> None:
    for status, headers, _text in (page.get("/"), page.get("/begin", Cookie=page.cookie())):
        assert status in (200, 401)
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_no_file_outside_the_page_is_served(page: Served) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/"):
        assert page.get(path, Cookie=page.cookie())[0] == 404, path


def test_it_listens_on_loopback_alone(page: Served) -> None:
    listening_on = {
        found.laddr.ip
        for found in psutil.Process(page.process.pid).net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    }
    assert listening_on == {"127.0.0.1"}
    outside = other_address()
    if outside:
        with pytest.raises(OSError), socket.create_connection((outside, page.port), timeout=5):
            pass


def test_a_ticket_opens_the_page_once_and_the_token_as_often_as_one_likes() -> None:
    keys = Keys(8377)
    ticket = keys.ticket()
    assert [keys.opens(ticket), keys.opens(ticket)] == [True, False]
    assert [keys.opens(keys.token), keys.opens(keys.token)] == [True, True]
    assert not keys.opens("")
    assert Keys(8377).token != keys.token


def test_a_port_that_is_taken_is_told_and_the_usual_one_gives_way() -> None:
    with listening(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Busy) as refused:
            listening(port)
        assert refused.value.args_by_name == {"port": port}
    with listening(None) as first, listening(None) as second:
        assert first.getsockname() != second.getsockname()


def test_ctrl_c_ends_it_at_once_though_a_tab_is_open(scripted: FakeDaemon, serve: Serve) -> None:
    page = serve()
    stream = page.live()
    assert next(stream)[0] == "link"
    assert "Traceback" not in page.end()
    assert page.process.returncode == 0
    assert wait_for(lambda: next(stream, None) is None)


def test_without_its_libraries_one_sentence_says_what_to_install(scripted: FakeDaemon) -> None:
    code = "import sys; from safetrain.cli import main; sys.modules['uvicorn'] = None; "
    code += "sys.exit(main(['dashboard']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert "pip install 'safetrain[dashboard]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_change_needs_the_token_of_its_own_path(page: Served) -> None:
    keep = {"Cookie": page.cookie(), "Origin": f"http://{page.host}"}
    text = page.get("/begin", **keep)[2]
    tokens = ACTION.findall(text)
    by_path = {path: {name: token} for path, name, token in tokens}
    assert {"/begin/upload", "/begin/check", "/language"} <= by_path.keys()
    right, other = by_path["/begin/point"], by_path["/begin/check"]
    for forged in ({}, other, dict.fromkeys(right, ""), dict.fromkeys(right, "é")):
        answer = page.ask("/begin/point", "POST", "path=/none", **keep, **forged)
        assert answer.status == 403, forged
    for without in ("Cookie", "Origin"):
        kept = {name: value for name, value in keep.items() if name != without}
        assert page.ask("/begin/point", "POST", "path=/none", **kept, **right).status in (401, 403)
    answer = page.ask("/begin/point", "POST", "path=/none", **keep, **right)
    assert answer.status == 404 and "/none" in answer.read().decode()
    another = Keys(page.port).action("/begin/point")  # of a dashboard that has ended
    replayed = dict.fromkeys(right, another)
    assert page.ask("/begin/point", "POST", "path=/none", **keep, **replayed).status == 403


def test_the_libraries_are_those_whose_hashes_are_kept() -> None:
    sums = (VENDOR / "SHA256SUMS").read_text().splitlines()
    kept = {name: digest for digest, name in (line.split() for line in sums)}
    here = {p.name for p in VENDOR.iterdir()} - {"SHA256SUMS", "README.md"}
    assert here == kept.keys()
    for name, digest in kept.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
