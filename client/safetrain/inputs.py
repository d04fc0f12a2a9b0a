"""What a user gives on the command line, made into what the daemon takes: absolute and checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetrain.lora_yaml import from_mlx_lm, is_mlx_lm
from safetrain_shared.errors import InvalidInput, InvalidSetting, NotFound
from safetrain_shared.settings import SettingValue, checked, parse

DEFAULT_MODEL = "mlx-community/Mistral-7B-Instruct-v0.3-4bit"
DEFAULT_OUTPUT = "checkpoints_qlora"
_FULL_DATA = ("train_v3_final_complete.jsonl", "valid_v3_final_complete.jsonl")
_SAMPLE_DATA = ("farense_train.jsonl", "farense_valid.jsonl")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def absolute(path: str) -> str:
    """`path` from the current folder, `~` resolved. Links stay, as the user named them."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (resolve would follow links)


def model(text: str) -> str:
    """A folder of this machine as an absolute path; a known name or a hub id as it is."""
    looks_like_path = text.startswith((".", "/", "~"))
    return absolute(text) if looks_like_path or (Path(text) / "config.json").exists() else text


def data(train: str | None, valid: str | None) -> tuple[str, str]:
    """The training and the validation file: those given, else ./data's full set, else the sample.

    Raises InvalidInput where only one is given, NotFound where there is not even the sample.
    """
    if train and valid:
        return absolute(train), absolute(valid)
    if train or valid:
        raise InvalidInput("client.half_of_the_data")
    here = Path.cwd() / "data"
    places = [(here, _FULL_DATA), (here, _SAMPLE_DATA), (_packaged_sample(), _SAMPLE_DATA)]
    for folder, names in places:
        if all((folder / name).is_file() for name in names):
            return str(folder / names[0]), str(folder / names[1])
    raise NotFound("client.no_sample", path=str(here))


def _packaged_sample() -> Path:
    """`safetrain/sample` in an installed wheel, the repository's `data` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "sample"
    return installed if installed.is_dir() else package.parent.parent / "data"


def settings(config: str | None, pairs: Sequence[str]) -> dict[str, SettingValue]:
    """The settings of a configuration file, then those of `--set KEY=VALUE`, each checked.

    Raises InvalidInput for a file that cannot be read, InvalidSetting for a name or value.
    """
    chosen = read_config(absolute(config)) if config else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InvalidSetting("client.set_form", text=pair)
        chosen[name.strip()] = parse(name.strip(), value.strip())
    return chosen


def read_config(path: str) -> dict[str, SettingValue]:
    """The settings in a JSON or YAML file; one of `mlx_lm.lora` is read in our names."""
    try:
        text = Path(path).read_text("utf-8")
    except FileNotFoundError:
        raise NotFound("path.missing", path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput("path.unreadable", path=path, reason=reason) from None
    values = _parsed(path, text)
    if not isinstance(values, dict):
        raise InvalidInput("setting.config_unreadable", path=path, reason=type(values).__name__)
    if is_mlx_lm(values):
        values = from_mlx_lm(values)
    return {str(name): checked(str(name), value) for name, value in values.items()}


def _parsed(path: str, text: str) -> Any:
    if path.endswith((".yaml", ".yml")):
        try:
            import yaml  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise InvalidInput("client.yaml_missing", path=path) from None
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise InvalidInput("setting.config_unreadable", path=path, reason=reason) from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput("setting.config_unreadable", path=path, reason=str(error)) from None


def memory(text: str | None) -> int:
    """Bytes of an amount such as 6GB, 6,5 GB or 800M (1 GB = 2**30); 0 where none is given."""
    if not text:
        return 0
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if not match:
        raise InvalidSetting("client.size_form", text=text)
    amount, unit = match.groups()
    return int(float(amount.replace(",", ".")) * _UNITS[unit])
