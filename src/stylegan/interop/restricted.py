"""A restricted pickle reader that builds plain data and calls only functions of its caller.

Python's unpickler imports and calls whatever a file names. This reader imports nothing: names are
looked up in a table, and a name outside the table is an error, or a placeholder that only records
what the file says. Memory is limited to the size of the
file, so that a small file cannot exhaust it, and to `MAX_HELD`, as a sparse file can have any size.
`pickletools`, the standard library's disassembler, decodes the operations.
"""

import errno
import io
import itertools
import os
import pickletools
import re
import stat
import sys
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeVar, cast, runtime_checkable

from stylegan.errors import WeightsError

Value = TypeVar("Value")

_OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
_LITERALS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "BINFLOAT",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINSTRING",  # Python 2's strings, decoded as latin1
        "BINSTRING",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    }
)
# Each operation may create an object of some hundred bytes. A training checkpoint with 30 million
# parameters and the state of both optimizers has 31,000 operations.
_MAX_OPERATIONS = 1_000_000
SUSPECT = "download the file again; do not use it if it stays so, as it may be malicious"
UNTRUSTED = "nothing of the file was run; use a file from a source that you trust"
"""What to do about a file that is not as its format requires."""
MAX_HELD = 560 << 20
"""Limit in bytes on the strings and data of a pickle, and on the tensors of one network.

The largest official files, three networks of 1024x1024 in configuration F, have 381 MB. With the
temporary memory for reading one value, a hostile file stays below a gigabyte.
"""
# Limits for one value. The largest tensor of the official networks, D's first dense layer, has
# 17 MB, or 67 MB with doubled channels. While they are read, bytes take twice their size in memory,
# and text outside latin1 up to five times its size in the file.
_MAX_BYTES = 68 << 20
_MAX_TEXT = 28 << 20
_MAX_INTEGER = 256
_MAX_LINE = 1024  # bytes of a name
_LIMITS: Mapping[str, int] = {
    "BINUNICODE": _MAX_TEXT,
    "BINUNICODE8": _MAX_TEXT,
    "LONG4": _MAX_INTEGER,
}
# Bytes of a set's item: its slot in the hash table, and the copy when the table grows.
_SET_ITEM = 100
_OBJECT = 500  # bytes of a small dictionary or a stand-in, at most
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], object]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_SHORT_TUPLES: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@runtime_checkable
class Restorable(Protocol):
    """An object with state that a pickle stores separately from its arguments."""

    def restore(self, state: object) -> None:
        """Set the state; raise ValueError if it does not have the expected form."""


class Record(dict[object, object]):
    """Stand-in for a subclass of dict; its attributes are dropped."""

    def restore(self, state: object) -> None:
        """Drop attributes, such as `_metadata` of torch's state dicts."""
        instance_of(state, dict)


def new_record(items: object = ()) -> Record:
    """Return a stand-in for a subclass of dict; ValueError if it gets items.

    Protocol 2 and later fill dictionaries by operations. Arguments would have to be copied.
    """
    if not isinstance(items, tuple) or items:
        raise ValueError("a dictionary made from arguments")
    return Record()


_BUILTIN = (
    *("object", "bool", "int", "float", "complex", "str", "bytes", "tuple", "list", "dict"),
    *("frozenset", "slice", "range"),
)
_HARMLESS = frozenset(
    {
        *("argparse.Namespace", "types.SimpleNamespace", "functools.partial"),
        *("collections.Counter", "collections.defaultdict", "collections.deque"),
        *("copyreg._reconstructor", "copy_reg._reconstructor"),
        *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "datetime.datetime"),
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTIN),
    }
)
"""Names of the standard library that may be placeholders. No other ones: files that run commands,
such as `posix.system`, are refused by name."""
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg"}
_CONSTRUCTOR = re.compile(r"_*[A-Z]\w*|_*re(build|construct)\w*|\w+_ctor")
"""Last part of the names of classes, and of functions that only make objects again."""


@dataclass(eq=False)
class Placeholder:
    """Stand-in for an unknown class or function, or an object made from it. It does nothing.

    Attributes:
        name: dotted name in the file, such as "timm.models.efficientnet.EfficientNet".
        arguments: those that the file gives; None for the class or function itself.
        state: what the file would set; None for nothing.
    """

    name: str
    arguments: object = None
    state: object = None

    def restore(self, state: object) -> None:
        """Record the state."""
        self.state = state


@dataclass(frozen=True)
class Name:
    """A name of the table in a pickle, with the function that stands in for it."""

    name: str
    call: Callable[..., object]


class Budget:
    """Limits on the memory for a file.

    Args:
        num_bytes: limit on the sum of what is charged, such as the size of the file.
        origin: the file, for errors.
    """

    def __init__(self, num_bytes: int, origin: str) -> None:
        self.left = num_bytes
        self.held = 0
        self.origin = origin

    def charge(self, num_bytes: int) -> None:
        """Count `num_bytes` as used.

        Raises:
            WeightsError: if the sum exceeds the limit.
        """
        self.left -= num_bytes
        if self.left < 0:
            raise WeightsError(
                f"{self.origin} declares more data than it holds",
                expected="tensors no larger than the file",
                fix=SUSPECT,
            )

    def hold(self, num_bytes: int) -> None:
        """Count `num_bytes` as in memory until the file is closed.

        Raises:
            WeightsError: if the sum exceeds `MAX_HELD`.
        """
        self.held += num_bytes
        if self.held > MAX_HELD:
            raise WeightsError(
                f"{self.origin} needs more than {MAX_HELD >> 20} MiB of memory",
                expected="networks of the official sizes",
                fix="if you made the file, save each network in a file of its own",
            )

    def hold_set(self, num_items: int) -> None:
        """Count a set made from a list as in memory; WeightsError as `hold`."""
        self.hold(_SET_ITEM * num_items)


class BoundedFile(io.BufferedReader):
    """A file whose `read` never allocates more than the rest of the file.

    Raises:
        OSError: if it cannot be opened, or is not a regular file, as reading a pipe would block.
    """

    def __init__(self, path: Path) -> None:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        super().__init__(io.FileIO(path))
        self.num_bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes."""
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, self.num_bytes - self.tell())
        return super().read(size)

    def check_end(self, origin: str) -> None:
        """Raise WeightsError if there are bytes after the end of the pickle."""
        if left := self.num_bytes - self.tell():
            raise WeightsError(
                f"{origin} has {left} bytes after the end of its pickle",
                expected="one pickle and nothing else",
                fix=SUSPECT,
            )


def first_name(path: Path) -> str | None:
    """Return the first name in a pickle, such as "collections.OrderedDict".

    It identifies kinds of pickles without reading them. None if the file is not a pickle, or has no
    name near its start. Never raises.
    """
    try:
        with BoundedFile(path) as stream:
            if stream.peek(1)[:1] != b"\x80":
                return None
            texts = [""]
            with _quiet():
                early = itertools.islice(_operations(stream, max_bytes=_MAX_LINE), 100)
                for operation, argument in early:
                    if operation == "GLOBAL":
                        return str(argument).replace(" ", ".", 1)
                    if operation == "STACK_GLOBAL":
                        return ".".join(texts[-2:])
                    if isinstance(argument, str):
                        texts.append(argument)
    except (OSError, ValueError):
        pass
    return None


def quoted(value: object) -> str:
    """Format a value from a file for an error: one line, ASCII, short."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return str(value) if value.bit_length() < 64 else f"an integer of {value.bit_length()} bits"
    text = ascii(value) if isinstance(value, str) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:76] + "...'"


def instance_of(value: object, kind: type[Value]) -> Value:
    """Return the value; raise TypeError if it is of another type."""
    if not isinstance(value, kind):
        raise TypeError(f"{quoted(value)} where a {kind.__name__} should be")
    return value


class Machine:
    """Read one pickle of protocol 2 to 5.

    Args:
        origin: the file, for errors.
        calls: the function for each allowed name. It gets the arguments in the file, and raises
            ValueError or TypeError if they are invalid. It must limit what it allocates beyond
            its arguments by a `Budget`.
        budget: charged for the strings and data of the pickle.
        persistent: resolves persistent ids; None refuses them.
        keeps_unknown: make a `Placeholder` of classes outside `calls`, and of objects of these
            classes. Refused in any case are names of the standard library but for harmless ones,
            and calls of anything but classes.
        max_bytes: limit on one value, in bytes.
    """

    def __init__(
        self,
        origin: str,
        calls: Mapping[str, Callable[..., object]],
        *,
        budget: Budget,
        persistent: Callable[[object], object] | None = None,
        keeps_unknown: bool = False,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self.origin = origin
        self.calls = calls
        self.budget = budget
        self.persistent = persistent
        self.keeps_unknown = keeps_unknown
        self.max_bytes = max_bytes
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, stream: IO[bytes]) -> object:
        """Read a pickle, and leave the stream right after its end.

        Raises:
            WeightsError: if the data is not such a pickle, uses anything outside `calls`, or needs
                more memory than allowed or available.
        """
        try:
            with _quiet():
                return self._run(stream)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            detail = " ".join(ascii(str(error)).split())[:120]
            raise WeightsError(
                f"{self.origin} is incomplete or damaged ({detail})",
                expected="a whole pickle",
                fix="download the file again",
            ) from error
        except MemoryError as error:
            raise WeightsError(
                f"{self.origin} needs more memory than is free", fix="close other programs"
            ) from error

    def _run(self, stream: IO[bytes]) -> object:
        for index, (operation, argument) in enumerate(
            _operations(stream, max_bytes=self.max_bytes)
        ):
            if operation == "STOP":
                if len(self.stack) != 1:
                    raise ValueError(f"{len(self.stack)} values at the end")
                return self.stack[0]
            if index == _MAX_OPERATIONS:
                raise ValueError(f"more than {_MAX_OPERATIONS} operations")
            self._step(operation, argument)
        raise AssertionError("_operations ends with STOP or raises")

    def _step(self, operation: str, argument: object) -> None:
        """Run one operation that is not STOP."""
        if operation in _LITERALS:
            if isinstance(argument, str | bytes | bytearray):
                self.budget.hold(sys.getsizeof(argument))
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _EMPTY:
            self.budget.hold(_OBJECT)
            self.stack.append(_EMPTY[operation]())
        elif operation in _SHORT_TUPLES:
            self.stack.append(tuple(self._pop(_SHORT_TUPLES[operation])))
        elif operation in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            index = len(self.memo) if operation == "MEMOIZE" else instance_of(argument, int)
            self.memo[index] = self.stack[-1]
        elif operation in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise LookupError(f"nothing was remembered as {argument}")
            self.stack.append(self.memo[instance_of(argument, int)])
        elif operation == "MARK":
            self.marks.append(len(self.stack))
        elif operation == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            self.stack.append(self._look_up(f"{module}.{name}"))
        elif operation not in ("PROTO", "FRAME"):
            self._build(operation)

    def _build(self, operation: str) -> None:
        """Run an operation that builds something from values on the stack."""
        if operation == "TUPLE":
            self.stack.append(tuple(self._pop_to_mark()))
        elif operation in ("APPEND", "APPENDS"):
            items = self._pop(1) if operation == "APPEND" else self._pop_to_mark()
            if not isinstance(self.stack[-1], Placeholder):
                instance_of(self.stack[-1], list).extend(items)
        elif operation in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if operation == "SETITEM" else self._pop_to_mark()
            if len(items) % 2 != 0:
                raise ValueError("a key without a value")
            keys = [_key(key) for key in items[::2]]
            if not isinstance(self.stack[-1], Placeholder):
                instance_of(self.stack[-1], dict).update(zip(keys, items[1::2], strict=True))
        elif operation == "ADDITEMS":
            items = self._pop_to_mark()
            if not isinstance(self.stack[-1], Placeholder):
                instance_of(self.stack[-1], set).update(_key(item) for item in items)
        elif operation == "STACK_GLOBAL":
            module, name = self._pop(2)
            self.stack.append(self._look_up(f"{instance_of(module, str)}.{instance_of(name, str)}"))
        elif operation in ("REDUCE", "NEWOBJ"):
            self.budget.hold(_OBJECT)
            target, arguments = self._pop(2)
            if isinstance(target, Placeholder):
                self.stack.append(self._placeholder(target, arguments))
            else:
                self.stack.append(instance_of(target, Name).call(*instance_of(arguments, tuple)))
        elif operation == "NEWOBJ_EX" and self.keeps_unknown:
            self.budget.hold(_OBJECT)
            target, *arguments = self._pop(3)
            self.stack.append(self._placeholder(instance_of(target, Placeholder), arguments))
        elif operation == "BUILD":
            (state,) = self._pop(1)
            target = self.stack[-1]
            if not isinstance(target, Restorable):
                raise TypeError(f"{quoted(target)} takes no state")
            target.restore(state)
        elif operation == "BINPERSID" and self.persistent is not None:
            (key,) = self._pop(1)
            self.stack.append(self.persistent(key))
        else:
            raise WeightsError(
                f"{self.origin} uses the pickle operation {operation}",
                expected="only those that build tensors and settings",
                fix=UNTRUSTED,
            )

    def _look_up(self, name: str) -> Name | Placeholder:
        """Find an allowed name, or make a placeholder."""
        if name in self.calls:
            return Name(name, self.calls[name])
        is_standard = name.partition(".")[0] in _STANDARD and name not in _HARMLESS
        if not self.keeps_unknown or is_standard or not _is_dotted(name):
            raise self._unknown(name)
        self.budget.hold(_OBJECT + len(name))
        return Placeholder(name)

    def _placeholder(self, target: Placeholder, arguments: object) -> Placeholder:
        """Record a call of an unknown class."""
        last = target.name.rpartition(".")[2]
        if target.arguments is not None:
            raise ValueError("a call of an object")
        if target.name not in _HARMLESS and not _CONSTRUCTOR.fullmatch(last):
            raise self._unknown(target.name)
        return Placeholder(target.name, arguments)

    def _unknown(self, name: str) -> WeightsError:
        return WeightsError(
            f"{self.origin} refers to {quoted(name)}, which no supported file needs",
            expected="only tensors and settings",
            fix=UNTRUSTED,
        )

    def _pop(self, num: int) -> list[object]:
        """Take the last `num` values, none from below a mark."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - floor < num:
            raise IndexError("the stack is empty")
        taken = self.stack[-num:]
        del self.stack[-num:]
        return taken

    def _pop_to_mark(self) -> list[object]:
        """Take all values since the last mark, and the mark."""
        if not self.marks:
            raise IndexError("no mark")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken


class _Arguments:
    """A stream for the argument readers of `pickletools`, with a limit on the size of one value."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.limit = 0

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; ValueError if that is above the limit."""
        if size > self.limit:
            raise ValueError(f"one value of {size} bytes")
        return self.stream.read(size)

    def readline(self) -> bytes:
        """Read a line, or the start of a long line, which `pickletools` refuses."""
        return self.stream.readline(_MAX_LINE)


def _operations(stream: IO[bytes], *, max_bytes: int) -> Iterator[tuple[str, object]]:
    """Yield the operations of a pickle and their arguments, up to STOP.

    `pickletools.genops` would read arguments of any declared size.
    """
    arguments = _Arguments(stream)
    while True:
        code = stream.read(1)
        operation = _OPERATIONS.get(code.decode("latin1"))
        if operation is None:
            raise ValueError(f"no operation {code!r}" if code else "no STOP at the end")
        arguments.limit = min(max_bytes, _LIMITS.get(operation.name, max_bytes))
        read = None if operation.arg is None else operation.arg.reader
        yield operation.name, None if read is None else read(cast(IO[bytes], arguments))
        if operation.name == "STOP":
            return


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings of `pickletools` about backslashes in names, which no valid file has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _is_dotted(name: str) -> bool:
    """Return whether a name is that of a class or function in a module."""
    return len(name) <= _MAX_LINE and name.isascii() and all(map(str.isidentifier, name.split(".")))


def _key(value: object) -> Hashable:
    """Check a key. Hashing a deeply nested tuple would overflow the C stack."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, str | int | float | None) for part in parts):
        raise TypeError(f"{quoted(value)} as a key")
    return value
