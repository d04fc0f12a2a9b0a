"""The versions of Python and of packages that the project supports; pyproject.toml has the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Supported:
    """A package: its name for people, its module and distribution, and its versions from `low` to
    before `high`.
    """

    name: str
    module: str
    distribution: str
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def range(self) -> str:
        """The versions as one writes them: `0.32.4 – 0.33`."""
        low, high = (".".join(str(n) for n in version) for version in (self.low, self.high))
        return (
            f"{low} \N{EN DASH} {high}"
            if self.high < _ANY
            else f"\N{GREATER-THAN OR EQUAL TO} {low}"
        )


_ANY = (1 << 30,)
PACKAGES = (
    Supported("MLX", "mlx", "mlx", (0, 32, 4), (0, 33)),
    Supported("MLX-LM", "mlx_lm", "mlx-lm", (0, 32, 2), (0, 33)),
    Supported("Transformers", "transformers", "transformers", (5,), (6,)),
    Supported("Tokenizers", "tokenizers", "tokenizers", (0, 20), (1,)),
    Supported("NumPy", "numpy", "numpy", (1, 26), _ANY),
    Supported("msgspec", "msgspec", "msgspec", (0, 20), _ANY),
    Supported("orjson", "orjson", "orjson", (3, 10), _ANY),
    Supported("psutil", "psutil", "psutil", (7,), _ANY),
    Supported("gRPC", "grpc", "grpcio", (1, 80), _ANY),
    Supported("protobuf", "google.protobuf", "protobuf", (6, 33), _ANY),
)


def as_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 0.32.4rc1 → (0, 32, 4)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
