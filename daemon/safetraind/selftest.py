"""The self-test, `python -m safetraind.selftest`: is training exact here, the memory plan right.

Trains a tiny model three times through a real service in a home of its own: twice left alone, once
with its worker killed in the middle. Where the two undisturbed trainings differ, the GPU itself is
not deterministic, and that is the verdict. Prints JSON objects, one a line: {"doing": …} for each
stage, {"finding": …} for each verdict, last {"done": …} with the machine and whether all
passed.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
from google.protobuf.json_format import MessageToDict

from safetrain_proto.v1 import (
    diagnosis_pb2,
    diagnosis_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)
from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import Busy, SafetrainError, Unreachable, error_to_dict
from safetrain_shared.events import StepDone
from safetrain_shared.findings import Finding, Status
from safetrain_shared.history import History, history
from safetrain_shared.jobs import FINAL, JobSpec, JobState, Plan
from safetrain_shared.paths import ADAPTERS, Home, RunFolder, socket_target
from safetrain_shared.wire import finding_from_wire, spec_to_wire, state_from_wire
from safetraind import background
from safetraind.app import device
from safetraind.host.mac_services import mac_services
from safetraind.processes.locks import is_held
from safetraind.storage import event_file
from safetraind.storage.durable import read_json

TRAIN_SECONDS = 600.0
PEAK_TOLERANCE = 0.1
"""The share by which the run's peak may differ from the plan's: the planner's own margin."""
PEAK_FLOOR = 8 << 20
"""Bytes by which it may in any case: what an allocator rounds up is much for a tiny model alone."""

_POLL_SECONDS = 0.1
_KILL_FROM = 0.4  # of all steps
_LEARNED = 0.8  # the last loss must lie below this share of the first
_SETTINGS = {
    "batch_size": 2,
    "gradient_accumulation": 2,
    "max_seq_length": 128,
    "num_epochs": 2,
    "learning_rate": 2e-3,
    "warmup_steps": 4,
    "save_steps": 4,
    "eval_steps": 8,
    "log_steps": 1,
    "lora_dropout": 0.1,  # so that the random state must be restored, too
    "gradient_checkpointing": False,
    "loss_chunk": 0,
    "seed": 7,
}


# Further ways to train, for `--thorough`, and how often each is killed.
_WAYS: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": True, "lora_dropout": 0.0},
    {"loss_chunk": 64},
    {"batch_size": 8, "gradient_accumulation": 1},
    {"packing": True, "max_seq_length": 512, "batch_size": 4},
    {"dequantize": sys.platform == "darwin"},  # the other than otherwise
    {"fine_tune_type": "dora", "lora_rank": 16},
)
_KILLS = 3
_DEMO_STEPS: dict[str, Any] = {"max_seq_length": 256, "batch_size": 4, "num_epochs": 1}


@dataclass(frozen=True, slots=True)
class Run:
    """A training that has ended: its log of each step, and its files."""

    steps: dict[int, StepDone]
    adapter: bytes
    plan: Plan
    resumed: int = 0
    killed: int = 0


def main(arguments: list[str]) -> int:
    """Run the self-test. Return 0 where all passed, 1 where something failed, else the exit code of
    an error.
    """
    thorough = "--thorough" in arguments
    try:
        with tempfile.TemporaryDirectory(prefix="safetrain-selftest-") as folder:
            return 0 if Selftest(Path(folder), thorough=thorough).run() else 1
    except SafetrainError as error:
        _print({"error": error_to_dict(error)})
        return error.exit_code


class Selftest:
    """The service in a home of its own, and its trainings."""

    def __init__(self, folder: Path, *, thorough: bool = False) -> None:
        """`thorough`: also other ways to train, more kills, a real model, and what a Mac offers."""
        self._folder, self._thorough = folder, thorough
        self._home = Home(folder / "home")
        self._verdicts: list[Finding] = []

    def run(self) -> bool:
        """Return whether everything passed.

        Raises Busy where the GPU is in use, Unreachable where the service does not start or a
        training comes to no end.
        """
        if is_held(self._home.lease(device())):
            raise Busy("selftest.gpu_busy")
        self._doing("making")
        _make(self._folder)
        self._doing("starting")
        background.start(self._home)
        try:
            with grpc.insecure_channel(socket_target(self._home.socket)) as channel:
                machine = self._examine(channel)
                jobs = jobs_pb2_grpc.JobsStub(channel)
                self._try_way(jobs, "first", {}, kills=_KILLS if self._thorough else 1)
                if self._thorough:
                    self._go_further(channel, jobs)
        finally:
            background.stop(self._home, now=True)
        passed = all(finding.status is not Status.FAILED for finding in self._verdicts)
        _print({"done": {"passed": passed, "machine": machine}})
        return passed

    def _examine(self, channel: grpc.Channel) -> dict[str, Any]:
        """Return the machine's facts, and whether its device computes correctly."""
        stub = diagnosis_pb2_grpc.DiagnosisStub(channel)
        found = stub.Examine(diagnosis_pb2.ExamineRequest(), timeout=TRAIN_SECONDS)
        for message in found.findings:
            if message.section == "gpu":
                self._found(finding_from_wire(message))
        machine: dict[str, Any] = MessageToDict(found.machine)
        return machine

    def _try_way(
        self, jobs: jobs_pb2_grpc.JobsStub, name: str, way: dict[str, Any], *, kills: int
    ) -> None:
        """Train twice undisturbed, then with the worker killed.

        The first two show whether the GPU is deterministic.
        """
        self._doing("training")
        alone = self._train(jobs, f"{name}-alone", way)
        self._judge_training(alone)
        self._doing("again")
        again = self._train(jobs, f"{name}-again", way)
        for number in range(kills):
            self._doing("killing")
            killed = self._train(jobs, f"{name}-killed-{number}", way, kill=True)
            self._judge_resume(alone, again, killed)

    def _go_further(self, channel: grpc.Channel, jobs: jobs_pb2_grpc.JobsStub) -> None:
        for number, way in enumerate(_WAYS):
            settings = ", ".join(f"{name}={value}" for name, value in way.items())
            self._found(Finding("selftest.way", args={"settings": settings}))
            self._try_way(jobs, f"way-{number}", way, kills=1)
        self._doing("fetching")
        models = models_pb2_grpc.ModelsStub(channel)
        try:
            for _ in models.Add(models_pb2.AddModelRequest(name="demo"), timeout=TRAIN_SECONDS):
                pass
        except grpc.RpcError:  # no network, or no index
            self._found(Finding("selftest.no_real_model", Status.SKIPPED))
        else:
            self._doing("real")
            self._judge_training(self._train(jobs, "real", _DEMO_STEPS, model="demo"))
        for finding in mac_services():
            self._found(finding)

    def _train(
        self,
        jobs: jobs_pb2_grpc.JobsStub,
        name: str,
        way: dict[str, Any],
        *,
        kill: bool = False,
        model: str = "",
    ) -> Run:
        """Run one training to its end. Raises Unreachable where it does not come to one."""
        spec = _spec(self._folder, name, way, model)
        job = jobs.Submit(jobs_pb2.SubmitRequest(spec=spec_to_wire(spec)), timeout=60).job.id
        run = self._home.run(job)
        killed = self._kill_in_the_middle(run) if kill else 0
        state = self._wait_for_end(jobs, job)
        known = _history(run)
        resumed = [one.finding for one in known.notices if one.finding.code == "train.resumed"]
        if state is not JobState.SUCCEEDED:
            self._found(_failed("selftest.not_trained", state=str(state)))
        adapter = Path(spec.output) / ADAPTERS / "adapters.safetensors"
        content = adapter.read_bytes() if adapter.exists() else b""
        plan = read_json(run.plan)
        steps = {step.step: step for step in known.steps}
        since = int(resumed[-1].args.get("step") or 0) if resumed else 0
        return Run(steps, content, from_plain(plan, Plan), since, killed)

    def _kill_in_the_middle(self, run: RunFolder) -> int:
        """Kill the worker once it has a checkpoint and more steps behind it. Return the step."""
        deadline = time.monotonic() + TRAIN_SECONDS
        while time.monotonic() < deadline:
            step, saved = _how_far(run)
            if saved and step > saved + 1:
                for worker in _workers(run):
                    worker.send_signal(signal.SIGKILL)
                return step
            time.sleep(_POLL_SECONDS)
        raise self._silent()

    def _wait_for_end(self, jobs: jobs_pb2_grpc.JobsStub, job: int) -> JobState | None:
        deadline = time.monotonic() + TRAIN_SECONDS
        while time.monotonic() < deadline:
            state = state_from_wire(jobs.Get(jobs_pb2.JobRequest(id=job), timeout=60).state)
            if state in FINAL:
                return state
            time.sleep(_POLL_SECONDS)
        raise self._silent()

    def _silent(self) -> Unreachable:
        return Unreachable("daemon.silent", seconds=TRAIN_SECONDS, log=str(self._home.log))

    def _judge_training(self, run: Run) -> None:
        losses = [step.loss for _, step in sorted(run.steps.items())]
        if not losses:
            return
        args = {"steps": len(losses), "first": round(losses[0], 3), "last": round(losses[-1], 3)}
        fell = all(map(math.isfinite, losses)) and losses[-1] < _LEARNED * losses[0]
        self._found(_verdict(fell, "selftest.trained", "selftest.not_learned", **args))
        peak = max(step.peak_memory for step in run.steps.values())
        planned = run.plan.measured_peak or run.plan.predicted_peak
        off = peak / planned - 1 if planned else math.inf
        right = abs(off) <= PEAK_TOLERANCE or abs(peak - planned) <= PEAK_FLOOR
        sized = {"peak": peak, "planned": planned, "off": abs(off)}
        self._found(_verdict(right, "selftest.peak_right", "selftest.peak_wrong", **sized))

    def _judge_resume(self, alone: Run, again: Run, killed: Run) -> None:
        args = {"step": killed.killed, "resumed": killed.resumed}
        resumed = killed.resumed > 0
        self._found(_verdict(resumed, "selftest.resumed", "selftest.not_resumed", **args))
        if difference := _difference(alone, again):  # then it proves nothing of the resume
            self._found(Finding("selftest.not_deterministic", Status.WARNING, args=difference))
            return
        difference = _difference(alone, killed)
        equal = {"steps": len(alone.steps), "bytes": len(alone.adapter)}
        self._found(
            _verdict(not difference, "selftest.equal", "selftest.not_equal", **equal | difference)
        )

    def _found(self, finding: Finding) -> None:
        self._verdicts.append(finding)
        _print({"finding": to_plain(finding)})

    def _doing(self, what: str) -> None:
        _print({"doing": what})


def _make(folder: Path) -> None:
    command = [sys.executable, "-m", "safetraind.worker", "tiny", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _difference(one: Run, other: Run) -> dict[str, int]:
    """Return the numbers of losses compared and of those that differ.

    It is empty where losses and adapters are equal to the bit.
    """
    differing = sum(
        number not in other.steps or other.steps[number].loss != step.loss
        for number, step in one.steps.items()
    )
    if not differing and one.adapter == other.adapter != b"":
        return {}
    return {"steps": len(one.steps), "differing": differing}


def _spec(folder: Path, name: str, way: dict[str, Any], model: str = "") -> JobSpec:
    settings = {**_SETTINGS, "dequantize": sys.platform != "darwin", **way}
    return JobSpec(
        model=model or str(folder / "model"),
        train=str(folder / "train.jsonl"),
        valid=str(folder / "valid.jsonl"),
        output=str(folder / name),
        name=f"selftest-{name}",
        settings=settings,
    )


def _history(run: RunFolder) -> History:
    return history(read.event for read in event_file.read(run.events))


def _how_far(run: RunFolder) -> tuple[int, int]:
    """Return the newest step and the newest checkpoint's step, once enough of the training has
    passed.
    """
    known = _history(run)
    if not known.steps or known.steps[-1].step < _KILL_FROM * known.total_steps:
        return 0, 0
    return known.steps[-1].step, known.checkpoint.step if known.checkpoint else 0


def _workers(run: RunFolder) -> list[psutil.Process]:
    """Return the processes that work in the run's folder, without their keeper."""
    found = []
    for process in psutil.process_iter(["cmdline", "uids"]):
        command = process.info["cmdline"] or []
        ours = process.info["uids"] is not None and process.info["uids"].real == os.getuid()
        if ours and command[-2:] == ["train", str(run.root)]:
            found.append(process)
    return found


def _verdict(good: bool, passed: str, failed: str, **args: Any) -> Finding:
    return Finding(passed, Status.PASSED, args=args) if good else _failed(failed, **args)


def _failed(code: str, **args: Any) -> Finding:
    return Finding(code, Status.FAILED, args=args)


def _print(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
