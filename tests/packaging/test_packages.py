"""Preflight looks for the packages that pyproject.toml requires, in the same ranges."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from safetrain_shared.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
_BY_MLX_LM = {
    "transformers",
    "tokenizers",
    "numpy",
}  # mlx-lm requires them, pyproject.toml does not


def required() -> dict[str, str]:
    """The version ranges of pyproject.toml by distribution, client and daemon together."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["daemon"]]
    found = (re.match(r"([a-z0-9-]+)(?:\[.*\])?([^;]*)", line) for line in lines)
    return {match[1]: match[2].strip() for match in found if match}


def test_preflight_looks_for_the_versions_that_are_required() -> None:
    ranges = required()
    for package in PACKAGES:
        if package.distribution in _BY_MLX_LM:
            continue
        low = ".".join(map(str, package.low))
        high = ".".join(map(str, package.high))
        bounded = f">={low},<{high}" if package.high < (1 << 30,) else f">={low}"
        assert ranges[package.distribution] == bounded, package.distribution
