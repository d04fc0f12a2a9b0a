"""Keyword arguments shared by several calls: full signatures, and errors for typos."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast, get_type_hints

from safetrain_shared.settings import FIELDS

F = TypeVar("F", bound=Callable[..., Any])


def keywords(kind: type, defaults: Mapping[str, Any]) -> Callable[[F], F]:
    """Decorate a function whose last parameter is `**name: Unpack[kind]`, `kind` a TypedDict.

    Its signature, as `help` and editors show it, then names every key with its default, and a call
    with any other name raises TypeError, which suggests the nearest one.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name])
            for name in get_type_hints(kind)
        ]
        known = [p.name for p in (*named, *shared) if p.name != "self"]

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in known:
                    raise TypeError(_unknown(function.__name__, name, known))
            return function(*args, **kwargs)

        call.__signature__ = own.replace(parameters=[*named, *shared])  # type: ignore[attr-defined]
        return cast("F", call)

    return decorate


def _unknown(function: str, name: str, known: list[str]) -> str:
    text = f"{function}() got an unexpected keyword argument {name!r}"
    if name in FIELDS:
        return f"{text}. It is a setting: settings={{{name!r}: …}}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"{text}. Did you mean {near[0]!r}?" if near else text
