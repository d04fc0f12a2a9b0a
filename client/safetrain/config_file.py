"""Reads a JSON or YAML configuration file into a dictionary; names are not interpreted here."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from safetrain_shared.errors import InvalidInput, NotFound

_YAML = (".yaml", ".yml")
# YAML 1.2's numbers; PyYAML, which follows 1.1, reads 2e-4 as text.
_MOST_BYTES = 1 << 20  # a configuration has a kilobyte
_EXPONENT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$")


def read_file(path: str) -> dict[str, Any]:
    """Return the top-level mapping of the file; a byte order mark is skipped.

    Raises NotFound, and InvalidInput where it cannot be parsed or is not a mapping.
    """
    values = _parsed(path, _text(path))
    if not isinstance(values, dict):
        raise InvalidInput("setting.config_unreadable", path=path, reason=type(values).__name__)
    return {str(name): value for name, value in values.items()}


def _text(path: str) -> str:
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InvalidInput("path.not_a_file", path=path)
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InvalidInput("setting.config_unreadable", path=path, reason=f"> {_MOST_BYTES} B")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise NotFound("path.missing", path=path) from None
    except OSError as error:
        raise InvalidInput("path.unreadable", path=path, reason=error.strerror) from None
    except UnicodeDecodeError:
        raise InvalidInput("path.unreadable", path=path, reason="utf-8") from None


def _parsed(path: str, text: str) -> Any:
    return _yaml(path, text) if path.lower().endswith(_YAML) else _json(path, text)


def _yaml(path: str, text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader, which also reads 2e-4 as a number, and no key twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            _refuse_doubled(path, names)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        where = {"line": line, "column": column}
        raise InvalidInput("setting.config_malformed", path=path, **where) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput("setting.config_unreadable", path=path, reason=str(error)) from None


def _json(path: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=partial(_mapping, path))
    except json.JSONDecodeError as error:
        where = {"line": error.lineno, "column": error.colno}
        raise InvalidInput("setting.config_malformed", path=path, **where) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput("setting.config_unreadable", path=path, reason=str(error)) from None


def _mapping(path: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_doubled(path, [name for name, _ in pairs])
    return dict(pairs)


def _refuse_doubled(path: str, names: list[str]) -> None:
    """Raise InvalidInput where a key stands twice: one of its values would be lost."""
    doubled = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if doubled is not None and doubled != "<<":
        raise InvalidInput("config.doubled", path=path, name=doubled)
