"""Facts made up for tests: a machine, a model and data in which nothing is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.packages import PACKAGES
from safetraind.host import HostFacts, macos
from safetraind.models.model_config import Linear, ModelFacts, ModelShape
from safetraind.planner import choose_plan
from safetraind.planner.budget import Budget
from safetraind.planner.facts import Data, Disk, Facts
from safetraind.planner.memory_estimate import expected
from safetraind.planner.option import Option, Question
from safetraind.worker_messages.inspect_messages import DataFile, Lengths, Package
from safetraind.worker_messages.probe_messages import Device, Loaded, Measure, Step
from tests.preflight.macs import M1_PRO

GB = 1 << 30
MB = 1 << 20
SPEC = JobSpec(model="m", train="/d/train.jsonl", valid="/d/valid.jsonl", output="/d/out")
LINUX = HostFacts("Linux", chip="Xeon", memory_total=16 * GB, memory_free=12 * GB, cpu_cores=4)
MAC = macos.gather(M1_PRO.run())
# A model of about 135 million parameters, as float32.
SHAPE = ModelShape(
    layers=30,
    hidden=576,
    intermediate=1536,
    heads=9,
    kv_heads=3,
    head_dim=64,
    vocabulary=49152,
    weight_bytes=540 * MB,
    float32_bytes=540 * MB,
    item_bytes=4,
    linears=(Linear("self_attn.q_proj", 576, 576), Linear("mlp.gate_proj", 576, 1536)),
)
MODEL = ModelFacts(
    "m", path="/models/m", bytes=540 * MB, model_type="llama", known=True, shape=SHAPE
)
METAL = Device(
    "metal", name="Apple M1 Pro", memory=16 * GB, working_set=11 * GB, largest_buffer=8 * GB
)


def lengths(*pairs: tuple[int, int], scale: float = 1.0) -> Lengths:
    """Lengths of (tokens, samples); half of each sample is its answer."""
    tops = [(tokens, tokens // 2) for tokens, count in pairs for _ in range(min(count, 64))]
    return Lengths(
        tokens=tuple(sorted(pairs)),
        answers=tuple((tokens // 2, count) for tokens, count in sorted(pairs)),
        longest=max(tokens for tokens, _ in pairs),
        tops=tuple(sorted(tops, reverse=True)),
        scale=scale,
    )


def all_learned(counted: Lengths) -> Lengths:
    """The same samples, of which every token is an answer."""
    tops = tuple((tokens, tokens) for tokens, _ in counted.tops)
    return dataclasses.replace(counted, answers=((0, counted.counted),), tops=tops)


def data_file(path: str = "/d/train.jsonl", **changes: Any) -> DataFile:
    """A good file of 848 samples."""
    values: dict[str, Any] = {
        "path": path,
        "format": "chat",
        "lines": 848,
        "samples": 848,
        "size": 1 << 20,
        "errors": 0,
        "warnings": 0,
        "counts": {},
        "lengths": lengths((40, 400), (90, 448)),
    }
    return DataFile(**{**values, **changes})


def facts(**changes: Any) -> Facts:
    """A Mac on which everything is well."""
    values: dict[str, Any] = {
        "host": MAC,
        "disk": Disk("/d/out", free=100 * GB, models_free=100 * GB, same_disk=True),
        "model": MODEL,
        "python": "3.12.1",
        "compiler": "/usr/bin/g++",
        "openblas": "/usr/lib/libopenblas.so.0",
        "packages": {p.module: Package(".".join(map(str, p.low))) for p in PACKAGES},
        "data": Data(data_file(), data_file("/d/valid.jsonl", samples=95)),
        "device": METAL,
        "loaded": Loaded(1.0, "a"),
    }
    return Facts(**{**values, **changes})


def question(**changes: Any) -> Question:
    """The planner's question for the model above on a CPU with 12 GB to be had."""
    values: dict[str, Any] = {
        "spec": SPEC,
        "shape": SHAPE,
        "quantized": False,
        "model_path": str(Path("/models/m")),
        "lengths": lengths((40, 400), (90, 448)),
        "samples": 848,
        "text_only": False,
        "available": 12 * GB,
        "budget": Budget(worker=11 * GB, cache=512 * MB, mlx=10 * GB),
        "device": "cpu",
    }
    return Question(**{**values, **changes})


def planned(measures: tuple[Measure, ...] = (), **changes: Any) -> Plan:
    """The plan for `question(**changes)`, which is not refused."""
    answer = choose_plan.plan(question(**changes), measures)
    assert isinstance(answer, Plan), answer
    return answer


def estimated(asked: Question, option: Option) -> int:
    """The peak that is expected with the memory that there is."""
    return expected(asked.runtime, option.settings, option.step, asked.budget.limit).total


def spec(**settings: Any) -> JobSpec:
    """The job, with these settings chosen by the user."""
    return dataclasses.replace(SPEC, settings=settings)


def budget(mlx: int) -> Budget:
    """A budget with so many bytes for MLX's arrays."""
    return Budget(worker=mlx + 500 * MB, cache=16 * MB, mlx=mlx)


def small(option: Option, rows: int, width: int, peak: int, speed: float) -> Measure:
    """Steps of a small shape in an option's way of computing."""
    settings = dataclasses.replace(option.settings, batch_size=rows)
    learned = option.step.learned * rows * width // (option.step.rows * option.step.width)
    return Measure(settings, Step(rows, width, learned), peak, speed)
