"""A pickle machine that cannot run anything: pickletools takes the bytes apart, this follows them.

Python's own Unpickler imports names and calls them; subclassing it closes the doors one by one.
This machine has no doors: it knows lists, dicts, scalars and the records of ``inert``.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from mhc_diag.checkpoints.inert import InertPickleError
from mhc_diag.checkpoints.pickle_machine import PickleMachine

MAX_OPCODES = 5_000_000
"""Steps that a pickle may take: about 150 000 tensors; some 10 seconds."""


def unpickle(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Follow a pickle without executing any of it.

    Args:
        data: the pickle.

    Returns:
        The object, made of plain values and the records of ``inert``, and the foreign names in it.

    Raises:
        InertPickleError: damaged, too long, or contradicting itself.
    """
    machine = PickleMachine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a damaged text are no news to the user
            return _follow(machine, data), tuple(machine.foreign)
    except InertPickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # Whatever a damaged pickle does to plain lists and dicts ends here.
        why = str(error)[:200] or type(error).__name__
        raise InertPickleError(f"the pickle is damaged ({why})") from error


def _follow(machine: PickleMachine, data: bytes) -> Any:
    """Follow opcode after opcode; the value that stands on the stack at the end."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count >= MAX_OPCODES:
            raise InertPickleError(f"the pickle has more than {MAX_OPCODES} steps")
        if opcode.name == "STOP":
            return machine.pop()
        _step(machine, opcode.name, argument)
    raise InertPickleError("the pickle has no end")


def _step(machine: PickleMachine, name: str, argument: Any) -> None:
    """Follow one opcode."""
    if name in _PUSH:
        machine.stack.append(argument)
    elif name in _CONSTANTS:
        machine.stack.append(_CONSTANTS[name]())
    elif name in _ACTIONS:
        _ACTIONS[name](machine, argument)
    elif name not in {"PROTO", "FRAME"}:
        raise InertPickleError(f"the pickle uses {name}, which no checkpoint needs")


_PUSH = frozenset(
    f"{prefix}{kind}"
    for kind, prefixes in {
        "INT": ("", "BIN"),
        "INT1": ("BIN",),
        "INT2": ("BIN",),
        "LONG": ("",),
        "LONG1": ("",),
        "LONG4": ("",),
        "FLOAT": ("", "BIN"),
        "STRING": ("", "BIN", "SHORT_BIN"),
        "UNICODE": ("", "BIN", "SHORT_BIN"),
        "UNICODE8": ("BIN",),
        "BYTES": ("BIN", "SHORT_BIN"),
        "BYTES8": ("BIN",),
        "BYTEARRAY8": ("",),
    }.items()
    for prefix in prefixes
)
"""Opcodes whose argument is the value itself."""
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_ACTIONS: Mapping[str, Callable[[PickleMachine, Any], None]] = {
    "MARK": PickleMachine.mark,
    "POP": PickleMachine.discard,
    "POP_MARK": PickleMachine.discard_mark,
    "DUP": PickleMachine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleMachine.put),
    "MEMOIZE": PickleMachine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleMachine.get),
    "GLOBAL": PickleMachine.name,
    "STACK_GLOBAL": PickleMachine.stack_name,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), PickleMachine.extension),
    "TUPLE": PickleMachine.tuple_of_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("LIST", "FROZENSET"), PickleMachine.list_of_mark),
    "DICT": PickleMachine.dict_of_mark,
    "APPEND": PickleMachine.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), PickleMachine.extend),
    "SETITEM": PickleMachine.set_item,
    "SETITEMS": PickleMachine.set_items,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), PickleMachine.reduce),
    "NEWOBJ_EX": PickleMachine.new_object_with_names,
    "INST": PickleMachine.instance,
    "OBJ": PickleMachine.object,
    "BUILD": PickleMachine.build,
    "BINPERSID": PickleMachine.persistent,
}
