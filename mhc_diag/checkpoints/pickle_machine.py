"""The state of a pickle that is followed without running anything: stack, marks, memo.

One method per kind of opcode; ``unpickle`` says which opcode is which.
"""

from __future__ import annotations

from typing import Any

from mhc_diag.checkpoints.inert import (
    KNOWN,
    MAX_NAME,
    Global,
    InertPickleError,
    Opaque,
    call,
    hashable,
    storage,
)

MAX_TUPLE_KEYS = 10_000
"""Keys that are tuples: their hash is not seeded, so that many could be made to collide."""
MAX_FOREIGN = 1000
"""Foreign names that are kept for the report."""
MAX_COPIED = 256 * 2**20
"""Bytes that calls may copy: a pickle can name the same long text or dict again and again."""
_ENTRY = 100


class PickleMachine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.foreign: dict[str, None] = {}
        self.tuple_keys = 0
        self.copied = 0

    def pop(self) -> Any:
        """Take the topmost value."""
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def mark(self, _: Any) -> None:
        """MARK."""
        self.marks.append(self.stack)
        self.stack = []

    def discard(self, _: Any) -> None:
        """POP: the topmost value, or a mark that stands there."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def discard_mark(self, _: Any) -> None:
        """POP_MARK."""
        self.pop_mark()

    def duplicate(self, _: Any) -> None:
        """DUP."""
        self.stack.append(self.stack[-1])

    def put(self, index: int) -> None:
        """PUT and its short forms."""
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        """MEMOIZE."""
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        """GET and its short forms."""
        self.stack.append(self.memo[index])

    def name(self, argument: str) -> None:
        """GLOBAL: module and name, one space between."""
        module, _, name = argument.partition(" ")
        self.push_global(module, name)

    def stack_name(self, _: Any) -> None:
        """STACK_GLOBAL: module and name from the stack."""
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise InertPickleError("a class is named by something that is no text")
        self.push_global(module, name)

    def extension(self, code: int) -> None:
        """EXT1, EXT2, EXT4: a registered class; the registry is not asked."""
        self.push_global("copyreg", f"extension_{code}")

    def push_global(self, module: str, name: str) -> None:
        """Push a name; remember it when it is nobody's data type."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if len(module) + len(name) > MAX_NAME:
            raise InertPickleError(f"a class has a name of more than {MAX_NAME} characters")
        full = f"{module}.{name}"
        if full not in KNOWN and len(self.foreign) < MAX_FOREIGN:
            shown = "".join(c if c.isprintable() else "?" for c in full)
            self.foreign.setdefault(shown)
        self.stack.append(Global(full))

    def tuple_of(self, count: int) -> None:
        """TUPLE1, TUPLE2, TUPLE3."""
        if len(self.stack) < count:
            raise InertPickleError("the pickle is damaged (stack too short)")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def tuple_of_mark(self, _: Any) -> None:
        """TUPLE."""
        values = self.pop_mark()
        self.stack.append(tuple(values))

    def list_of_mark(self, _: Any) -> None:
        """LIST, and FROZENSET, whose elements need not be hashable here."""
        values = self.pop_mark()
        self.stack.append(values)

    def dict_of_mark(self, _: Any) -> None:
        """DICT."""
        values = self.pop_mark()
        self.stack.append({})
        self._set(values)

    def append(self, _: Any) -> None:
        """APPEND."""
        self._extend([self.pop()])

    def extend(self, _: Any) -> None:
        """APPENDS and ADDITEMS."""
        self._extend(self.pop_mark())

    def set_item(self, _: Any) -> None:
        """SETITEM."""
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        """SETITEMS."""
        self._set(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise InertPickleError("elements are added to something that is no list")

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.items if isinstance(target, Opaque) else target
        if not isinstance(entries, dict) or len(values) % 2:
            raise InertPickleError("entries are added to something that is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            self.tuple_keys += isinstance(key, tuple)
            if self.tuple_keys > MAX_TUPLE_KEYS:
                raise InertPickleError(f"more than {MAX_TUPLE_KEYS} keys are tuples")
            entries[hashable(key)] = value

    def reduce(self, _: Any) -> None:
        """REDUCE and NEWOBJ: a call that stays a record."""
        args, function = self.pop(), self.pop()
        self._call(function, args)

    def new_object_with_names(self, _: Any) -> None:
        """NEWOBJ_EX: a call with keyword arguments."""
        keywords, args, function = self.pop(), self.pop(), self.pop()
        self._call(function, args)
        self._update(self.stack[-1], keywords)

    def instance(self, argument: str) -> None:
        """INST: a class by name and its arguments."""
        args = tuple(self.pop_mark())
        self.name(argument)
        self._call(self.pop(), args)

    def object(self, _: Any) -> None:
        """OBJ: a class and its arguments."""
        function, *args = self.pop_mark()
        self._call(function, tuple(args))

    def build(self, _: Any) -> None:
        """BUILD: attributes. Only records take them; a dict's or tensor's own are dropped."""
        state = self.pop()
        for part in state if isinstance(state, tuple) else (state,):
            self._update(self.stack[-1], part)

    def _call(self, function: Any, args: Any) -> None:
        made = call(function, args if isinstance(args, tuple) else (args,))
        self._charge(len(made) if isinstance(made, (bytes, str)) else 0)
        self.stack.append(made)

    def _update(self, target: Any, part: Any) -> None:
        if isinstance(target, Opaque) and isinstance(part, dict):
            self._charge(_ENTRY * len(part))
            target.state.update(part)

    def _charge(self, count: int) -> None:
        self.copied += count
        if self.copied > MAX_COPIED:
            raise InertPickleError(f"its calls copy more than {MAX_COPIED} bytes")

    def persistent(self, _: Any) -> None:
        """BINPERSID: torch's way to name a storage."""
        self.stack.append(storage(self.pop()))
