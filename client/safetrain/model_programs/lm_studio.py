"""LM Studio on this machine: where it keeps its models, and putting an exported one there.

Its models lie two folders deep, PUBLISHER/MODEL (https://lmstudio.ai/docs/app/basics/import-model).
Its home is the folder that ~/.lmstudio-home-pointer names, else an older default, else a newer one;
`downloadsFolder` in the home's settings.json is set where the user chose another folder for models.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetrain_shared.errors import Conflict, NotAllowed, Unreachable

PUBLISHER = "safetrain"
_POINTER = ".lmstudio-home-pointer"
_HOMES = (Path(".cache/lm-studio"), Path(".lmstudio"))  # in the user's home, in LM Studio's order
_NOT_WEIGHTS = ("Modelfile", "manifest.json")


def check(name: str) -> Path:
    """Return the folder for a model of that name.

    Raises Unreachable where LM Studio is not here, Conflict where it has a model of that name.
    """
    place = _models_folder() / PUBLISHER / name
    if place.exists():
        raise Conflict("export.program_has_it", program="LM Studio", name=f"{PUBLISHER}/{name}")
    return place


def put(folder: Path, gguf: str, place: Path) -> None:
    """Put a model at `place`, whole or not at all: its GGUF file if it has one, else its folder.

    Files are linked where both lie on one disk, so that they take no room. Raises NotAllowed.
    """
    files = [Path(gguf)] if gguf else [file for file in folder.iterdir() if file.is_file()]
    unfinished = place.with_name(f".{place.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for file in files:
            if file.name not in _NOT_WEIGHTS:
                name = f"{place.name}.gguf" if gguf else file.name
                _link_or_copy(file, unfinished / name)
        unfinished.rename(place)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = error.strerror or type(error).__name__
        raise NotAllowed(
            "export.not_put", place=str(place), reason=reason, path=str(folder)
        ) from error


def _models_folder() -> Path:
    """Return the folder in which LM Studio looks. Raises Unreachable where there is none."""
    home = _home()
    if not home.is_dir():
        raise Unreachable("export.lm_studio_missing", path=str(home))
    try:
        settings: Any = json.loads((home / "settings.json").read_text("utf-8"))
        chosen = settings["downloadsFolder"]
    except (OSError, ValueError, KeyError, TypeError):
        chosen = ""
    return Path(chosen) if isinstance(chosen, str) and chosen else home / "models"


def _home() -> Path:
    user = Path.home()
    try:
        pointed = (user / _POINTER).read_text("utf-8").strip()
    except (OSError, ValueError):
        pointed = ""
    defaults = [user / place for place in _HOMES]
    return Path(pointed) if pointed else next(filter(Path.is_dir, defaults), defaults[-1])


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file, target)
