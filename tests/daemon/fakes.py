"""A daemon whose workers and checks are play: `python tests/daemon/fakes.py` serves the home;
with `real` as its argument the workers are real and only the checks are play. A program named after
it runs them.

The play is told by the job's name, `pace=0.05,die=7`: seconds a step; the step at which the worker
dies each time; `how`, by which exit, or `memory`, for which it is short unless its micro-batch is
one sample; `check`, seconds of a probe; `refuse`, a finding's code;
`budget`, the plan's bytes; `alone`, the seconds that its plan expects of a step;
`listen`, its worker opens its socket; `hold`, a step after which, and
`holds`, phases (load, save, check) in which the play stands still until `let_go`; `real`, a real
worker takes its place. In the environment `PLAY_RUNTIME` takes the
place of the folder for sockets of long homes, `PLAY_HOST` says in JSON what is different on this
machine, `PLAY_DEVICE` what its workers compute on, `PLAY_PYTHON` which interpreter runs them,
`PLAY_BREAK` what raises an error that nobody foresaw the first time it is called,
`PLAY_READ_SECONDS` how long a read in a client's folder may take, `PLAY_DEAD` a folder of which
nothing can be read, as of a mount whose server is gone.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def play_of(name: str) -> dict[str, str]:
    """The play that a job's name tells."""
    return dict(part.split("=", 1) for part in name.split(",") if "=" in part)


def gate(output: str | Path, moment: str) -> Path:
    """The file for which a play that stands still waits; `moment`: step, load, save or check."""
    return Path(f"{output}.{moment}.go")


def let_go(output: str | Path, moment: str = "step") -> None:
    """Lets the play of the job with this output folder pass the moment, now and ever after."""
    gate(output, moment).touch()


def serve(worker: tuple[str, ...] = (__file__,)) -> None:
    from safetrain_shared.errors import SafetrainError
    from safetrain_shared.findings import Finding, Status
    from safetrain_shared.jobs import JobSpec, Plan
    from safetrain_shared.paths import home
    from safetrain_shared.settings import TrainingSettings
    from safetraind import app
    from safetraind.__main__ import _home_error, _report
    from safetraind.preflight.job_preflight import Foreseen
    from safetraind.processes.ephemeral import EphemeralWorkers
    from safetraind.worker_messages.probe_messages import PROBE

    class PlayChecks:
        phase = "probing"

        async def foresee(self, spec: JobSpec, *, idle: bool) -> Foreseen:
            return Foreseen()

        async def check(self, spec: JobSpec, launcher: EphemeralWorkers) -> Plan | Finding:
            play = play_of(spec.name)
            if "check" in play:
                await launcher.run_worker(PROBE, {"seconds": play["check"]}, lease=True)
            if "check" in play.get("holds", ""):
                until = str(gate(spec.output, "check"))
                await launcher.run_worker(PROBE, {"until": until}, lease=True)
            if "refuse" in play:
                return Finding(play["refuse"], Status.FAILED, True)
            return _plan(spec)

    def _plan(spec: JobSpec) -> Plan:
        settings = TrainingSettings().with_overrides(spec.settings)
        steps = settings.num_epochs * 10
        plan = Plan(settings, spec.model, total_steps=steps, expected_seconds=steps * 0.1)
        play = play_of(spec.name)
        if "alone" in play:
            alone = steps * float(play["alone"])
            plan = replace(plan, expected_seconds=alone, tokens_per_second=1 / alone)
        budget = int(play.get("budget", "0"))
        return replace(plan, memory_budget=budget, heaviest_width=64, heaviest_share=1.0)

    python = os.environ.get("PLAY_PYTHON", sys.executable)
    command = (python, *worker) if worker else ()
    parts = app.Parts(worker_command=command, checks=PlayChecks())
    try:
        app.run(home(), parts)
    except SafetrainError as error:
        sys.exit(_report(error, as_json=False))
    except OSError as error:
        sys.exit(_report(_home_error(error), as_json=False))


def train_really(folder: str) -> None:
    """Becomes a real worker where the play says so; else returns."""
    spec = json.loads((Path(folder) / "spec.json").read_text())["spec"]
    if "real" in play_of(spec["name"]):
        os.execv(sys.executable, [sys.executable, "-m", "safetraind.worker", "train", folder])


class Trainee:
    """Counts steps as a training would, with checkpoints that it goes on from."""

    def __init__(self, folder: str) -> None:
        from safetrain_shared.paths import RunFolder
        from safetraind.storage.event_file import EventWriter

        for name in ("SAFETRAIN_RUN_FD", "SAFETRAIN_LEASE_FD"):
            os.set_inheritable(int(os.environ[name]), False)
        self.run = RunFolder(Path(folder))
        document = json.loads(self.run.spec.read_text())
        self.output = Path(document["spec"]["output"])
        self.output.mkdir(parents=True, exist_ok=True)
        self.play = play_of(document["spec"]["name"])
        plan = json.loads(self.run.plan.read_text())
        self.steps, self.save_steps = plan["total_steps"], plan["settings"]["save_steps"]
        self.rows = plan["settings"]["batch_size"]
        launch = json.loads(self.run.launch.read_text())
        self.writer = EventWriter(self.run.events, launch["attempt"], launch["seq_floor"])
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)
        if "listen" in self.play:
            self._listen()

    def _listen(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.run.socket))
        (self.output / "socket").write_text(str(self.run.socket))

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def train(self) -> int:
        from safetrain_shared.events import PhaseChanged, StepDone

        checkpoint = self.output / "checkpoint.json"
        step, total = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, 0)
        self._hold("load")
        self.writer.append(PhaseChanged("training"))
        while step < self.steps:
            time.sleep(float(self.play.get("pace", "0.01")))
            step, total = step + 1, (total * 31 + step + 1) % 1_000_003
            if step == int(self.play.get("die", "-1")) and self._die():
                return 0
            body = StepDone(
                step, 0, step, self.steps, 1 / step, 0.1, 1.0, 1, 1.0, 1, 1, self.steps - step
            )
            self.writer.append(body)
            if step == int(self.play.get("hold", "-1")):
                self._stand_still("step")
            intent = self._intent()
            if intent or step % self.save_steps == 0 or step == self.steps:
                self._save(checkpoint, step, total)
            if intent:
                return self._end({"pause": "paused", "cancel": "cancelled"}[intent])
        (self.output / "result.json").write_text(json.dumps([step, total]))
        return self._end("succeeded")

    def _hold(self, moment: str) -> None:
        from safetrain_shared.events import PhaseChanged

        if moment in self.play.get("holds", ""):
            self.writer.append(PhaseChanged({"load": "loading", "save": "saving"}[moment]))
            self._stand_still(moment)
            self.writer.append(PhaseChanged("training"))

    def _stand_still(self, moment: str) -> None:
        while not (gate(self.output, moment).exists() or self._intent()):
            time.sleep(0.01)

    def _intent(self) -> str:
        if self.stopped:
            return "pause"
        return self.run.intent.read_text() if self.run.intent.is_file() else ""

    def _save(self, checkpoint: Path, step: int, total: int) -> None:
        from safetrain_shared.events import CheckpointSaved
        from safetraind.storage.durable import write_json

        self._hold("save")
        write_json(checkpoint, [step, total])
        self.writer.append(CheckpointSaved(step, 0, step, str(checkpoint), 1, 0.0))

    def _end(self, outcome: str) -> int:
        from safetrain_shared.events import Outcome
        from safetrain_shared.findings import Finding

        cause = Finding("train.stopped") if self.stopped else None
        self.writer.append(Outcome(outcome, cause))
        self.writer.sync()
        return 0

    def _die(self) -> bool:
        how: Any = self.play.get("how", "9")
        if how == "exit":
            os._exit(3)
        if how == "memory":
            return self.rows > 1 and self._run_out_of_memory()
        os.kill(os.getpid(), int(how))
        time.sleep(10)
        return True

    def _run_out_of_memory(self) -> bool:
        from safetrain_shared.events import Outcome
        from safetrain_shared.findings import Finding, Status

        self.writer.append(Outcome("failed", Finding("job.out_of_memory", Status.FAILED, True)))
        self.writer.sync()
        return True


def probe(folder: str) -> int:
    """Takes its time, or what the test takes, and says so."""
    request = json.loads((Path(folder) / "probe_request.json").read_text())
    time.sleep(float(request.get("seconds", 0)))
    while "until" in request and not Path(request["until"]).exists():
        time.sleep(0.01)
    (Path(folder) / "probe.json").write_text(json.dumps({}))
    return 0


def move_runtime(folder: Path) -> None:
    from safetrain_shared import paths

    paths.runtime_folder = lambda: folder


def break_once(name: str) -> None:
    """Let `module:object.attribute@n` raise the nth time that it is called, or the first time."""
    name, _, nth = name.partition("@")
    module, path = name.split(":")
    *owners, attribute = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real, calls = getattr(owner, attribute), itertools.count(1)

    def once(*args: Any, **named: Any) -> Any:
        if next(calls) == int(nth or 1):
            raise RuntimeError("unforeseen")
        return real(*args, **named)

    setattr(owner, attribute, once)


def hang_below(folder: str) -> None:
    """Let whoever opens a file below `folder` wait for ever."""

    def hang(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str) and args[0].startswith(f"{folder}/"):
            threading.Event().wait()

    sys.addaudithook(hang)


def be_another(facts: dict[str, Any]) -> None:
    from safetraind import host

    here = host.gather()
    host.gather = lambda: replace(here, **facts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if "PLAY_HOST" in os.environ:
        be_another(json.loads(os.environ["PLAY_HOST"]))
    if "PLAY_DEVICE" in os.environ:
        from safetraind import app

        app.device = lambda: os.environ["PLAY_DEVICE"]
    if "PLAY_READ_SECONDS" in os.environ:
        from safetraind.storage import bounded_read

        bounded_read.READ_SECONDS = float(os.environ["PLAY_READ_SECONDS"])
    if "PLAY_DEAD" in os.environ:
        hang_below(os.environ["PLAY_DEAD"])
    if "PLAY_BREAK" in os.environ:
        break_once(os.environ["PLAY_BREAK"])
    if "PLAY_RUNTIME" in os.environ:
        move_runtime(Path(os.environ["PLAY_RUNTIME"]))
    if len(sys.argv) == 1:
        serve()
    elif sys.argv[1] == "real":
        serve(tuple(sys.argv[2:]))
    elif sys.argv[1] == "train":
        train_really(sys.argv[2])
        sys.exit(Trainee(sys.argv[2]).train())
    else:
        sys.exit(probe(sys.argv[2]))
