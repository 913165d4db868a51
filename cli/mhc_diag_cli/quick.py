"""Starting without pydantic, which typer uses for every option from 0.29 on.

Importing it takes a third of the time that ``mhc-diag analyze`` of a small file takes altogether.
Words that stay words, and options that nobody gave, need no conversion; the rest still goes
through typer.
"""

from __future__ import annotations

from typing import Any

import typer


class Unconverted:
    """Stands where typer keeps the converter of a parameter, and makes it only when it is needed.

    Args:
        parameter: one of typer's options or arguments.
    """

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        """The value of ``parameter`` as its command takes it."""
        if value is None or value is self._parameter.default:
            return value
        kind = self._parameter.type_descriptor.annotation
        if kind is str:
            return value
        if kind == list[str]:
            return list(value)
        self._parameter._runtime_param = None  # noqa: SLF001  typer makes its own again
        return self._parameter.get_runtime_param().coerce(value, param=param, ctx=ctx)


def without_pydantic(command: Any, *, parent: typer.Context | None = None) -> Any:
    """Spare a command, and the commands in it, the converters that they do not need.

    A typer without these inner parts is left as it is: right all the same, only slower or faster.
    """
    context = typer.Context(command, parent=parent, **command.context_settings)
    for parameter in command.get_params(context):  # --help among them, made on first use
        if getattr(parameter, "_runtime_param", parameter) is None:
            parameter._runtime_param = Unconverted(parameter)  # noqa: SLF001  see above
    for inner in getattr(command, "commands", {}).values():
        without_pydantic(inner, parent=context)
    return command
