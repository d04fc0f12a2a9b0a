"""Where a training does not fit on a Mac: what to quit, what that gives, and what to ask for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from safetrain_shared.findings import Finding, Status
from safetraind.host import macos
from safetraind.host.apps import App, grouped
from safetraind.planner.budget import available, budget_for, most
from safetraind.planner.facts import Facts
from safetraind.planner.make_room import make_room
from safetraind.preflight.checks.machine_memory import CHECK
from safetraind.worker_messages.probe_messages import Device
from tests.preflight.facts import GB, LINUX, MB, SPEC, facts
from tests.preflight.macs import BUSY_M1_8, BUSY_M2_16

BROWSER, MESSENGER = App("Google Chrome", 3 * GB), App("Slack", 900 * MB)
GPU_8 = Device("metal", memory=8 * GB, working_set=int(5.33 * GB), largest_buffer=4 * GB)
GPU_16 = Device("metal", memory=16 * GB, working_set=int(10.67 * GB), largest_buffer=8 * GB)


def on(mac: Any, device: Device | None) -> Facts:
    return facts(host=macos.gather(mac.run()), device=device)


def refused(needed: int, known: Facts) -> Finding:
    room = int(0.92 * budget_for(SPEC, known).mlx)
    args = {"needed": needed, "room": room, "budget": budget_for(SPEC, known).worker}
    return Finding("plan.refused_layers", Status.FAILED, True, args=args)


def said(needed: int, known: Facts, *apps: App) -> dict[str, Any]:
    found = make_room(refused(needed, known), SPEC, known, apps)
    assert all(f.status is Status.INFO and not f.blocks for f in found)
    return {f.code: dict(f.args) for f in found}


def test_processes_are_counted_to_the_application_that_a_user_can_quit() -> None:
    chrome = "/Applications/Google Chrome.app/Contents"
    helper = f"{chrome}/Frameworks/Google Chrome Helper.app/Contents/MacOS/Helper"
    running = [
        (f"{chrome}/MacOS/Google Chrome", 700 * MB),
        *[(helper, 400 * MB)] * 6,
        ("/Applications/Slack.app/Contents/MacOS/Slack", 900 * MB),
        ("/Applications/Notes.app/Contents/MacOS/Notes", 90 * MB),
        ("/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder", 600 * MB),
        ("/usr/local/bin/python3", 5 * GB),
    ]
    assert grouped(running) == [App("Google Chrome", 3100 * MB), MESSENGER]


def test_apples_own_applications_can_be_quit_too() -> None:
    safari = "/System/Volumes/Preboot/Cryptexes/App/System/Applications/Safari.app/Contents/MacOS"
    running = [
        (f"{safari}/Safari", 500 * MB),
        ("/System/Applications/Mail.app/Contents/MacOS/Mail", 400 * MB),
    ]
    assert grouped(running) == [App("Safari", 500 * MB), App("Mail", 400 * MB)]


def test_what_to_quit_is_said_with_what_it_gives_and_that_it_is_enough() -> None:
    known = on(BUSY_M2_16, GPU_16)
    told = said(6 * GB, known, BROWSER, MESSENGER)
    assert told["plan.close_app"] == {"app": "Slack", "gives": 900 * MB}  # the last of the two
    assert told["plan.close_enough"]["room"] >= 6 * GB


def test_where_quitting_is_not_enough_that_is_said() -> None:
    told = said(12 * GB, on(BUSY_M1_8, GPU_8), BROWSER)
    assert told["plan.close_not_enough"]["needed"] == 12 * GB
    assert told["plan.close_not_enough"]["room"] < GPU_8.working_set, "the GPU may use no more"
    assert "plan.squeeze" not in told, "no budget would do"


def test_the_smallest_budget_that_would_do_is_proposed() -> None:
    known = on(BUSY_M2_16, GPU_16)
    budget = int(said(7 * GB, known)["plan.squeeze"]["budget"] * GB)
    enough = dataclasses.replace(SPEC, memory_budget=budget)
    less = dataclasses.replace(SPEC, memory_budget=budget - GB // 2)
    assert 0.92 * budget_for(enough, known).mlx >= 7 * GB > 0.92 * budget_for(less, known).mlx


def test_a_single_array_that_is_too_large_is_not_helped_by_memory() -> None:
    refusal = Finding("plan.refused_buffer", args={"needed": 9 * GB, "room": 8 * GB})
    assert make_room(refusal, SPEC, on(BUSY_M2_16, GPU_16), [BROWSER]) == []


@pytest.mark.parametrize("device", [GPU_16, None])
def test_a_budget_on_a_mac_may_go_beyond_what_is_available_up_to_the_gpus_part(
    device: Device | None,
) -> None:
    known = on(BUSY_M2_16, device)
    asked = dataclasses.replace(SPEC, memory_budget=8 * GB)
    assert available(asked, known) == 8 * GB > known.host.memory_available
    assert budget_for(asked, known).worker == 8 * GB
    greedy = dataclasses.replace(SPEC, memory_budget=15 * GB)
    assert available(greedy, known) == most(known) < 12 * GB


def test_on_linux_a_budget_beyond_what_is_available_is_not_given() -> None:
    known = facts(host=LINUX, device=None)
    asked = dataclasses.replace(SPEC, memory_budget=14 * GB)
    assert available(asked, known) == LINUX.memory_available


def test_a_budget_beyond_what_is_available_is_warned_of_with_what_must_make_way() -> None:
    known = on(BUSY_M1_8, GPU_8)
    asked = dataclasses.replace(SPEC, memory_budget=5 * GB)
    (warned,) = [f for f in CHECK.judge(asked, known) if f.status is Status.WARNING]
    assert warned.code == "hardware.budget_beyond"
    assert warned.args["beyond"] == 5 * GB - known.host.memory_available > 2 * GB
    everything = dataclasses.replace(SPEC, memory_budget=20 * GB)
    codes = [f.code for f in CHECK.judge(everything, known) if f.status is Status.WARNING]
    assert codes == ["hardware.budget_above", "hardware.budget_beyond"]


def test_where_the_users_own_budget_is_in_the_way_no_application_is() -> None:
    known = on(BUSY_M2_16, GPU_16)
    small = dataclasses.replace(SPEC, memory_budget=2 * GB)
    room = int(0.92 * budget_for(small, known).mlx)
    args = {"needed": 2 * GB, "room": room, "budget": budget_for(small, known).worker}
    refusal = Finding("plan.refused_layers", Status.FAILED, True, args=args)
    (told,) = make_room(refusal, small, known, [BROWSER])
    assert told.code == "plan.raise_budget"
    enough = dataclasses.replace(SPEC, memory_budget=int(float(told.args["budget"]) * GB))
    assert small.memory_budget < enough.memory_budget <= known.host.memory_available
    assert budget_for(enough, known).mlx * room / budget_for(small, known).mlx >= 2 * GB
