"""Reads a JSON or YAML configuration file into a dictionary; names are not interpreted here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetrain_shared.errors import InvalidInput, NotFound

_YAML = (".yaml", ".yml")
# YAML 1.2's numbers; PyYAML, which follows 1.1, reads 2e-4 as text.
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
        return Path(path).read_text("utf-8-sig")
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
        """PyYAML's safe loader, which also reads 2e-4 as a number."""

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
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = {"line": error.lineno, "column": error.colno}
        raise InvalidInput("setting.config_malformed", path=path, **where) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput("setting.config_unreadable", path=path, reason=str(error)) from None
