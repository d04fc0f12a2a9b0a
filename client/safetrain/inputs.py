"""Checks and completes user input: paths, data files, settings, sizes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetrain.config_file import read_file
from safetrain.int64 import MOST
from safetrain.mlx_lm_config import Config, from_mlx_lm, in_steps, is_mlx_lm, refuse_foreign
from safetrain_shared.errors import InvalidInput, InvalidSetting, NotFound
from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import DEFAULT_MODEL as DEFAULT_MODEL
from safetrain_shared.paths import QUESTIONS
from safetrain_shared.settings import SettingValue, checked, parse

DEFAULT_OUTPUT = "checkpoints_qlora"
_FULL_DATA = ("train_v3_final_complete.jsonl", "valid_v3_final_complete.jsonl")
_SAMPLE_DATA = ("farense_train.jsonl", "farense_valid.jsonl")
_LEAST_BUDGET = 1_000_000  # bytes; for less, a unit was forgotten
_HUB = "hf:"  # a data set there
_COLUMN_ROLES = ("question", "answer", "system", "text", "messages")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def absolute(path: str) -> str:
    """Return the absolute path, `~` expanded; symbolic links are kept.

    Raises InvalidInput for an empty path, a NUL character, and a name that is not UTF-8.
    """
    if not path:
        raise InvalidInput("path.empty")
    found = os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (resolve would follow links)
    try:
        found.encode()
    except UnicodeEncodeError:
        shown = found.encode(errors="replace").decode()
        raise InvalidInput("path.not_utf8", path=shown) from None
    if "\0" in found:
        raise InvalidInput("path.nul", path=found.replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return found


def source(text: str) -> str:
    """Return the absolute path of what `prepare` reads; `hf:OWNER/NAME`, of the hub, unchanged."""
    return text if text.startswith(_HUB) else absolute(text)


def columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Return which column holds what: `question`, `answer`, `system`, `text` or `messages`.

    Raises InvalidSetting for another role, or where a column has no name.
    """
    for role, column in columns.items():
        if role not in _COLUMN_ROLES or not column:
            known = ", ".join(_COLUMN_ROLES)
            raise InvalidSetting("prepare.map_form", text=f"{role}={column}", known=known)
    return dict(columns)


def model(text: str) -> str:
    """Return a model folder as an absolute path; a known name or a hub id unchanged."""
    looks_like_path = text.startswith((".", "/", "~"))
    return absolute(text) if looks_like_path or (Path(text) / "config.json").exists() else text


def default_data_note(train: str, valid: str) -> Finding:
    """Return a finding that names the data used by default."""
    if Path(train).parent == _packaged_sample() and _packaged_sample() != Path.cwd() / "data":
        return Finding("client.sample_data")
    return Finding("client.default_data", args={"train": train, "valid": valid})


def named_data(data: str | None, train: str | None, valid: str | None) -> tuple[str, str]:
    """Return the training and the validation file of DATA, --train and --valid; empty for none.

    `data`: a folder written by `prepare`, or a training file. Raises InvalidInput where `train` is
    given too, and for a folder without train.jsonl.
    """
    if not data:
        return train or "", valid or ""
    if train:
        raise InvalidInput("client.data_twice", data=data, train=train)
    folder = Path(absolute(data))
    if not folder.is_dir():
        return data, valid or ""
    if not (folder / "train.jsonl").is_file():
        raise InvalidInput("client.no_train_in_folder", path=str(folder))
    kept = folder / "valid.jsonl"
    return str(folder / "train.jsonl"), valid or (str(kept) if kept.is_file() else "")


def data(
    train: str | None, valid: str | None, folder: str = "", *, split: bool = False
) -> tuple[str, str]:
    """Return training and validation file: the given ones, else those of the configuration's
    `folder`, else the full set or the sample in ./data, else the packaged sample.

    `split`: the validation file is split off the training file later, and is empty here. Raises
    InvalidInput where only one is given or `folder` is a hub data set, NotFound where a folder, the
    sample or a training file that stands alone is missing.
    """
    if train and valid and split:
        raise InvalidInput("client.split_and_valid", path=absolute(valid))
    if train and (valid or split):
        return absolute(train), absolute(valid) if valid else ""
    if train:
        named = absolute(train)
        if not Path(named).exists():
            raise NotFound("path.missing", path=named)
        raise InvalidInput("client.no_validation", path=named)
    if valid or split:
        raise InvalidInput("client.no_training_data")
    if folder:
        named = absolute(folder)
        if not Path(named).is_dir():
            may_be_repository = re.fullmatch(r"[\w.-]+/[\w.-]+", folder)
            if may_be_repository and not Path(folder).parent.is_dir():
                raise InvalidInput("config.data_set", data=folder)
            raise NotFound("config.no_folder", path=named)
        return f"{named}/train.jsonl", f"{named}/valid.jsonl"
    return sample_data()


def sample_data() -> tuple[str, str]:
    """Return training and validation file of the full set or the sample in ./data, else of the
    packaged sample. Raises NotFound where there is none.
    """
    here = Path.cwd() / "data"
    places = [(here, _FULL_DATA), (here, _SAMPLE_DATA), (_packaged_sample(), _SAMPLE_DATA)]
    for place, names in places:
        if all((place / name).is_file() for name in names):
            return str(place / names[0]), str(place / names[1])
    raise NotFound("client.no_sample", path=str(here))


def evaluation(questions: str | None, train: str) -> EvaluationSpec | None:
    """What is asked once the job is trained: a question set, by default the questions that
    `prepare` held out beside the training file; None where there are none.
    """
    if questions:
        return EvaluationSpec(questions=absolute(questions))
    held_out = Path(train).with_name(QUESTIONS)
    return EvaluationSpec(questions=str(held_out)) if held_out.is_file() else None


def _packaged_sample() -> Path:
    """Return `safetrain/sample` of an installed wheel, or the repository's `data`."""
    package = Path(__file__).resolve().parent
    installed = package / "sample"
    return installed if installed.is_dir() else package.parent.parent / "data"


def settings(
    config: Config,
    pairs: Sequence[str],
    options: Mapping[str, SettingValue] | None = None,
) -> dict[str, SettingValue]:
    """Return the settings of a configuration, overridden by `options`, then by `--set KEY=VALUE`.

    Epochs that are named go before the steps of a configuration. Raises InvalidSetting.
    """
    named: dict[str, SettingValue] = {**(options or {})}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InvalidSetting("client.set_form", text=pair)
        named[name.strip()] = parse(name.strip(), value.strip())
    left_out = {"max_steps"} if "num_epochs" in named else set()
    chosen = {k: v for k, v in config.settings.items() if k not in left_out} | named
    for name, micro_batches in config.counts.items():  # steps of what is chosen in the end
        if name in chosen and chosen[name] == config.settings.get(name):
            accumulation = int(str(chosen.get("gradient_accumulation") or 1))
            chosen[name] = in_steps(micro_batches, accumulation)
    return chosen


def read_config(file: str) -> Config:
    """Read a JSON or YAML file; one of `mlx_lm.lora` is converted.

    Raises NotFound, InvalidInput for what cannot be read, InvalidSetting for a name or value.
    """
    values = read_file(absolute(file))
    if is_mlx_lm(values):
        return from_mlx_lm(values)
    refuse_foreign(values)
    return Config({name: checked(name, value) for name, value in values.items()})


def job_number(number: int) -> int:
    """Return a job's number, 0 for none. Raises NotFound for an impossible number."""
    if not 0 <= number <= MOST:
        raise NotFound("job.unknown", id=str(number))
    return number


def pilot(text: str | None) -> dict[str, SettingValue]:
    """The setting behind --pilot: minutes of a time such as 2min, 90s or 2; none for None.

    Raises InvalidSetting for what is no time.
    """
    if not text:
        return {}
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*(s|min|m)?\s*", text.lower())
    if not match:
        raise InvalidSetting("client.time_form", text=text)
    amount = float(match[1].replace(",", ".")) / (60 if match[2] == "s" else 1)
    return {"pilot_minutes": checked("pilot_minutes", amount)}


def memory(text: str | None) -> int:
    """Parse a size: 6GB (6 * 10**9 bytes), 6,5 GiB (2**30 each), 800M; 0 for none.

    Raises InvalidSetting for an invalid, too small or too large size.
    """
    if not text:
        return 0
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if not match:
        raise InvalidSetting("client.size_form", text=text)
    amount, unit, binary = match.groups()
    count = float(amount.replace(",", ".")) * (1024 if binary else 1000) ** _POWERS[unit]
    if count < _LEAST_BUDGET:
        raise InvalidSetting("client.size_too_small", text=text.strip(), amount=amount)
    if count > MOST:
        raise InvalidSetting("client.size_form", text=text)
    return int(count)
