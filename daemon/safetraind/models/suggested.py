"""Models worth training, for `safetrain models suggest`: a small table, each row with its source.

Sizes are those of the config.json on the hub; that they add up to the published number of
parameters is tested. Bytes on the disk follow from them. Licence and languages are the model
card's own words, read on `read`. A card that names no languages has none here.
"""

from __future__ import annotations

from dataclasses import dataclass

from safetraind.models.model_config import ModelShape
from safetraind.models.sizes import Sizes, shape_of_sizes

READ = "2026-11"  # when the model cards were read, year and month


@dataclass(frozen=True, slots=True)
class Suggested:
    """A model of the hub.

    `repository` is the value for --model. `bits` of its weights are 0 for 16-bit ones. `billions`
    is the number of parameters. `languages` is the number that the `source` names, 0 where it names
    none. `portuguese`: whether Portuguese is one of them, or "pt-PT" for a model made for the
    Portuguese of Portugal.
    """

    repository: str
    billions: float
    bits: int
    sizes: Sizes
    licence: str
    languages: int
    portuguese: str
    source: str
    read: str = READ

    @property
    def shape(self) -> ModelShape:
        """The model's dimensions, for the planner."""
        return shape_of_sizes(self.sizes, self.bits)


_QWEN = "https://qwenlm.github.io/blog/qwen3/"
_LLAMA = "https://huggingface.co/meta-llama/Llama-3.2-"
_LLAMA_LICENCE = "Llama 3.2 Community License"
_HUB = "https://huggingface.co/"

SUGGESTED = (
    Suggested(
        "mlx-community/Qwen3-0.6B-4bit",
        0.6,
        4,
        Sizes(28, 1024, 3072, 16, 8, 128, 151936),
        "Apache-2.0",
        119,
        "pt",
        _QWEN,
    ),
    Suggested(
        "mlx-community/Llama-3.2-1B-Instruct-4bit",
        1.23,
        4,
        Sizes(16, 2048, 8192, 32, 8, 64, 128256),
        _LLAMA_LICENCE,
        8,
        "pt",
        f"{_LLAMA}1B-Instruct",
    ),
    Suggested(
        "mlx-community/Qwen3-1.7B-4bit",
        1.7,
        4,
        Sizes(28, 2048, 6144, 16, 8, 128, 151936),
        "Apache-2.0",
        119,
        "pt",
        _QWEN,
    ),
    Suggested(
        "mlx-community/SmolLM3-3B-4bit",
        3.08,
        4,
        Sizes(36, 2048, 11008, 16, 4, 128, 128256),
        "Apache-2.0",
        6,
        "pt",
        f"{_HUB}HuggingFaceTB/SmolLM3-3B",
    ),
    Suggested(
        "mlx-community/Llama-3.2-3B-Instruct-4bit",
        3.21,
        4,
        Sizes(28, 3072, 8192, 24, 8, 128, 128256),
        _LLAMA_LICENCE,
        8,
        "pt",
        f"{_LLAMA}3B-Instruct",
    ),
    Suggested(
        "mlx-community/gemma-3-4b-it-4bit",
        3.88,
        4,
        Sizes(34, 2560, 10240, 8, 4, 256, 262208, window=1024, windowed=5 / 6),
        "Gemma Terms of Use",
        140,
        "pt",
        f"{_HUB}google/gemma-3-4b-it",
    ),
    Suggested(
        "mlx-community/Qwen3-4B-4bit",
        4.0,
        4,
        Sizes(36, 2560, 9728, 32, 8, 128, 151936),
        "Apache-2.0",
        119,
        "pt",
        _QWEN,
    ),
    Suggested(
        "mlx-community/Mistral-7B-Instruct-v0.3-4bit",
        7.25,
        4,
        Sizes(32, 4096, 14336, 32, 8, 128, 32768, tied=False),
        "Apache-2.0",
        0,
        "",
        f"{_HUB}mistralai/Mistral-7B-Instruct-v0.3",
    ),
    Suggested(
        "mlx-community/Qwen3-8B-4bit",
        8.2,
        4,
        Sizes(36, 4096, 12288, 32, 8, 128, 151936, tied=False),
        "Apache-2.0",
        119,
        "pt",
        _QWEN,
    ),
    Suggested(
        "PORTULAN/gervasio-8b-portuguese-ptpt-decoder",
        8.03,
        0,
        Sizes(32, 4096, 14336, 32, 8, 128, 128256, tied=False),
        "MIT",
        1,
        "pt-PT",
        f"{_HUB}PORTULAN/gervasio-8b-portuguese-ptpt-decoder",
    ),
    Suggested(
        "stelterlab/EuroLLM-9B-Instruct-MLX-4bit",
        9.15,
        4,
        Sizes(42, 4096, 12288, 32, 8, 128, 128000, tied=False),
        "Apache-2.0",
        35,
        "pt",
        f"{_HUB}utter-project/EuroLLM-9B-Instruct",
    ),
    Suggested(
        "mlx-community/Qwen3-14B-4bit",
        14.8,
        4,
        Sizes(40, 5120, 17408, 40, 8, 128, 151936, tied=False),
        "Apache-2.0",
        119,
        "pt",
        _QWEN,
    ),
)
