"""The checks, one small file each, in the order in which their findings are read."""

from safetraind.preflight.check import Check
from safetraind.preflight.checks import (
    architecture,
    blas,
    chip,
    code,
    compiler,
    cores,
    data_files,
    device_limits,
    device_works,
    disk_space,
    folders,
    leakage,
    licence,
    machine_memory,
    model_keys,
    model_loads,
    output,
    packages,
    power,
    pressure,
    problems,
    python,
    quantization,
    repeats,
    repository,
    sample_lengths,
    system,
    targets,
)

CHECKS: tuple[Check, ...] = (
    chip.CHECK,
    machine_memory.CHECK,
    pressure.CHECK,
    cores.CHECK,
    system.CHECK,
    power.CHECK,
    python.CHECK,
    packages.CHECK,
    compiler.CHECK,
    blas.CHECK,
    device_works.CHECK,
    device_limits.CHECK,
    data_files.CHECK,
    problems.CHECK,
    repeats.CHECK,
    leakage.CHECK,
    sample_lengths.CHECK,
    repository.CHECK,
    architecture.CHECK,
    code.CHECK,
    model_keys.CHECK,
    targets.CHECK,
    quantization.CHECK,
    licence.CHECK,
    model_loads.CHECK,
    output.CHECK,
    disk_space.CHECK,
    folders.CHECK,
)


def of_section(section: str) -> tuple[Check, ...]:
    """The checks of one section, in order."""
    return tuple(check for check in CHECKS if check.section == section)
