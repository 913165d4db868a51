"""Options that several commands share, written once.

Typer reads one parameter per option. A command here takes whole records of options instead
(``measuring: Measuring``); :func:`grouped` spreads the fields of each record out for typer and
gathers the values again.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Return ``function`` with every record among its parameters spread out into its fields.

    A record is a parameter whose type is a dataclass; its fields carry ``Annotated[..., Option]``.

    Raises:
        TypeError: two parameters of the same name; nobody could tell their values apart.
    """
    hints = get_type_hints(function, include_extras=True)
    spread: dict[str, inspect.Parameter] = {}
    records: dict[str, type[Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            records[name] = hints[name]
            found = _fields(hints[name])
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            found = [parameter.replace(annotation=hints[name], kind=kind)]
        for each in found:
            if each.name in spread:
                raise TypeError(f"{function.__name__}() takes the option {each.name!r} twice")
            spread[each.name] = each

    @functools.wraps(function)
    def command(**values: Any) -> None:
        gathered = {
            name: record(**{f.name: values.pop(f.name) for f in dataclasses.fields(record)})
            for name, record in records.items()
        }
        function(**values, **gathered)

    del command.__wrapped__  # typer would look through it and see the records
    command.__signature__ = inspect.Signature(list(spread.values()))  # type: ignore[attr-defined]  # functions carry one, the stubs do not know
    command.__annotations__ = {name: each.annotation for name, each in spread.items()}
    return command


def _fields(record: type[Any]) -> list[inspect.Parameter]:
    """The fields of a record as keyword parameters."""
    hints = get_type_hints(record, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(record)
    ]
