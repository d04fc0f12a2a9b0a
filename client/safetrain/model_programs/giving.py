"""Gives an exported model to a program of this machine: checked before the export, done after."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from safetrain.model_programs import lm_studio, ollama
from safetrain_proto.v1.exports_pb2 import Exported
from safetrain_shared.errors import InvalidInput

OLLAMA, LM_STUDIO = "ollama", "lm-studio"
PROGRAMS = (OLLAMA, LM_STUDIO)
Give = Callable[[Exported], str]
"""Gives the exported model and returns its name in the program."""


def needs_gguf(program: str) -> bool:
    """Whether the program reads GGUF alone: all but LM Studio on a Mac, which computes with MLX."""
    return program == OLLAMA or (program == LM_STUDIO and sys.platform != "darwin")


def prepared(program: str, folder: str, host: str) -> Give:
    """Return what gives the model in `folder`, once it is exported, to `program`.

    Raises InvalidInput where there is no such program or the export lies on another machine,
    Unreachable where the program is not here, Conflict where it has a model of the folder's name.
    """
    if program not in PROGRAMS:
        raise InvalidInput("export.no_program", program=program, known=", ".join(PROGRAMS))
    if host:
        raise InvalidInput("export.to_host", host=host)
    if program == OLLAMA:
        name = ollama.name_of(folder)
        ollama.check(name)

        def create(done: Exported) -> str:
            ollama.create(name, Path(done.path))
            return name

        return create
    place = lm_studio.check(Path(folder).name)

    def put(done: Exported) -> str:
        lm_studio.put(Path(done.path), done.gguf, place)
        return f"{lm_studio.PUBLISHER}/{place.name}"

    return put
