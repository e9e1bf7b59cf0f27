"""Pickles of arrays and plain containers, read as data.

A pickle is a program, and `pickle.Unpickler` runs it: it calls what the file names, and sets the attributes of what
that returns. Here nothing is called and no attribute is set. `load` gives plain containers; a call that the file asks
for becomes a `Call`, a record of what was to be called, and the reader of the file builds from it what it knows.
"""

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import IO, Any

ORDERED = "collections.OrderedDict"
_OPERATIONS = 300_000
_DIGITS = 255
_SMALL = 1 << 31


@dataclass(frozen=True, slots=True)
class Global:
    """A name in a module, such as torch.FloatStorage."""

    name: str


@dataclass(slots=True, eq=False)
class Call:
    """What the file would call, with which arguments, and the state that it would give to the result, if any."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def load(file: IO[bytes], names: Collection[str], reference: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle at the file's position, which is then behind it.

    Args:
        file: it can be sought.
        names: what the pickle may name, as module.name.
        reference: gives the value for a persistent id.

    Returns:
        dicts (ordered ones too), lists, tuples, text, bytes, numbers, None, `Global`, `Call`, what `reference` gives.

    Raises:
        ValueError: it is damaged, names something else, or needs an operation that arrays and containers do not.
    """
    return _Reader(file, names, reference).load()


class _Reader:
    def __init__(self, file: IO[bytes], names: Collection[str], reference: Callable[[Any], Any] | None):
        at = file.tell()
        self._left = file.seek(0, 2) - at
        file.seek(at)
        self._file, self._names, self._reference = file, names, reference
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        for _ in range(_OPERATIONS):
            code = self._take(1)
            if code == b".":
                return self._pop()
            if code not in _ACTIONS:
                raise ValueError(f"the operation {code!r} is not allowed in a pickle of arrays")
            _ACTIONS[code](self)
        raise ValueError(f"a pickle of more than {_OPERATIONS:,} operations")

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise ValueError("a pickle that is cut short")
        self._left -= count
        return self._file.read(count)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        line = self._file.readline(1000)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise ValueError("a pickle that is cut short")
        return line[:-1].decode()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("a pickle that takes a value where there is none")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("a pickle that takes values where there are none")
        values, self._stack = self._stack, self._marks.pop()
        return values

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise ValueError(f"a pickle that expects a {kind.__name__} where there is none")
        return self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _text(self, form: str, encoding: str) -> None:
        self._push(self._take(self._number(form)).decode(encoding))

    def _long(self, form: str) -> None:
        count = self._number(form)
        if not 0 <= count <= _DIGITS:
            raise ValueError("a number of too many digits")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _tuple(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def _append(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self._top(dict)
        if len(values) % 2:
            raise ValueError("a pickle of a key without a value")
        _fill(target, list(zip(values[::2], values[1::2], strict=True)))

    def _dict(self) -> None:
        values = self._since_mark()
        self._push({})
        self._set(values)

    def _global(self, module: Any, name: Any) -> None:
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "a name that is no text"
        if full not in self._names:
            raise ValueError(f"{full[:200]} is not allowed in a pickle of arrays")
        self._push(Global(full))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise ValueError("a pickle that calls something without a name")
        if function.name != ORDERED:
            self._push(Call(function.name, arguments))
            return
        # Python 2 gives the pairs at once, Python 3 sets them one by one.
        found: dict[Any, Any] = {}
        _fill(found, arguments[0] if arguments else [])
        self._push(found)

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1] if self._stack else None
        if type(target) is Call and target.state is None:
            target.state = state
        elif type(target) is not dict or type(state) is not dict or not state.keys() <= {"_metadata"}:
            # PyTorch notes the versions of a state dict's modules there.
            raise ValueError("a pickle that sets attributes")

    def _remember(self, at: int) -> None:
        if not self._stack:
            raise ValueError("a pickle that keeps a value where there is none")
        self._memo[at] = self._stack[-1]

    def _recall(self, at: int) -> None:
        if at not in self._memo:
            raise ValueError("a pickle that refers to a value that it did not keep")
        self._push(self._memo[at])

    def _persistent(self) -> None:
        if self._reference is None:
            raise ValueError("a pickle that refers to something outside")
        self._push(self._reference(self._pop()))


def _fill(target: dict[Any, Any], pairs: Any) -> None:
    if type(pairs) is not list or any(type(pair) not in (tuple, list) or len(pair) != 2 for pair in pairs):
        raise ValueError("a pickle of a dictionary that is not made of pairs")
    for key, value in pairs:
        # The hash of nested tuples, or of numbers that were chosen for it, can take for ever.
        if type(key) is not str and not (type(key) is int and abs(key) < _SMALL):
            raise ValueError(f"a key of type {type(key).__name__}")
        target[key] = value


_ACTIONS: dict[bytes, Callable[[_Reader], object]] = {
    b"\x80": lambda r: r._number("B"),
    b"\x95": lambda r: r._number("<Q"),
    b"(": _Reader._mark,
    b"0": lambda r: r._pop(),
    b"1": lambda r: r._since_mark(),
    b"N": lambda r: r._push(None),
    b"\x88": lambda r: r._push(True),
    b"\x89": lambda r: r._push(False),
    b"J": lambda r: r._push(r._number("<i")),
    b"K": lambda r: r._push(r._number("B")),
    b"M": lambda r: r._push(r._number("<H")),
    b"G": lambda r: r._push(r._number(">d")),
    b"\x8a": lambda r: r._long("B"),
    b"\x8b": lambda r: r._long("<i"),
    b"X": lambda r: r._text("<I", "utf-8"),
    b"\x8c": lambda r: r._text("B", "utf-8"),
    b"\x8d": lambda r: r._text("<Q", "utf-8"),
    b"U": lambda r: r._text("B", "ascii"),
    b"T": lambda r: r._text("<I", "ascii"),
    b"C": lambda r: r._push(r._take(r._number("B"))),
    b"B": lambda r: r._push(r._take(r._number("<I"))),
    b"\x8e": lambda r: r._push(r._take(r._number("<Q"))),
    b"]": lambda r: r._push([]),
    b"}": lambda r: r._push({}),
    b")": lambda r: r._push(()),
    b"a": lambda r: r._append([r._pop()]),
    b"e": lambda r: r._append(r._since_mark()),
    b"l": lambda r: r._push(r._since_mark()),
    b"t": lambda r: r._push(tuple(r._since_mark())),
    b"\x85": lambda r: r._tuple(1),
    b"\x86": lambda r: r._tuple(2),
    b"\x87": lambda r: r._tuple(3),
    b"d": _Reader._dict,
    b"s": lambda r: r._set([r._pop(), r._pop()][::-1]),
    b"u": lambda r: r._set(r._since_mark()),
    b"c": lambda r: r._global(r._line(), r._line()),
    b"\x93": _Reader._stack_global,
    b"R": _Reader._call,
    b"b": _Reader._build,
    b"q": lambda r: r._remember(r._number("B")),
    b"r": lambda r: r._remember(r._number("<I")),
    b"\x94": lambda r: r._remember(len(r._memo)),
    b"h": lambda r: r._recall(r._number("B")),
    b"j": lambda r: r._recall(r._number("<I")),
    b"Q": _Reader._persistent,
}
