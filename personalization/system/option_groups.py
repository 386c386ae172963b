"""Commands whose options come in groups: a dataclass is one parameter of the command, and each of its fields an option.

Typer knows flat signatures alone, and a command of many options would be one long list that no part can be taken from.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import Parameter, Signature
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` as Typer takes it: where a parameter is a dataclass, its fields are options in its place.

    The command gets the dataclass made of what was given, so what it refuses in `__post_init__` is refused then. Fields
    are annotated as Typer's parameters are; two of one name in a command are a fault. Raises ValueError for these.
    """
    hints = get_type_hints(command, include_extras=True)
    named = inspect.signature(command).parameters.values()
    groups = {one.name: hints[one.name] for one in named if is_dataclass(hints[one.name])}
    flat = [own for one in named for own in _expanded(one, hints[one.name])]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        made = {name: kind(**{own.name: given.pop(own.name) for own in fields(kind)}) for name, kind in groups.items()}
        command(**given, **made)

    called.__signature__ = Signature(flat)  # type: ignore[attr-defined]
    return called


def _expanded(parameter: Parameter, kind: Any) -> list[Parameter]:
    if not is_dataclass(kind):
        return [parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY)]
    hints = get_type_hints(kind, include_extras=True)
    return [_option(own, hints[own.name]) for own in fields(kind)]


def _option(field: Field[Any], kind: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
