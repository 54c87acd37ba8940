"""Watch a file while it runs as a script: which of its functions are called, with what, and from where.

It runs for a few seconds at most, and can only read: what it writes goes nowhere, and it begins no process.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np

from minigrad.handwritten.source import Source, Static, TooSlow, importing_beside, limited, opened, seeded

SECONDS = 3.0  # of computing that a file's own run is watched
MOST_CALLS = 1500
MOST_COPIED = 12  # calls of one function whose arguments are kept
WRITES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "subprocess.Popen",
          "os.system", "os.exec", "os.fork", "socket.connect"}


class Enough(BaseException):
    """Ends the run of the user's file."""


@dataclass
class Call:
    """One call of a function of the file, or of a method."""

    name: str
    owner: Any  # the instance, or None
    caller: int  # the number of the call from which it was made, -1 at the top of the file
    given: dict[str, Any]  # parameter → the very argument
    copies: dict[str, Any] | None  # the arguments as they were
    result: Any = None
    ended: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return (type(self.owner).__name__ if self.owner is not None else "", self.name)


class Watch:
    """The calls of a file's own functions while it runs as a script."""

    def __init__(self, source: Source):
        self.file, self.calls, self.open = source.file, list[Call](), list[int]()
        self.counts: dict[CodeType, int] = {}
        self.until = time.process_time() + SECONDS
        namespace: dict[str, Any] = {"__name__": "minigrad_user", "__file__": source.file, "np": np, "numpy": np,
                                     "open": opened, "static_": Static,
                                     "input": lambda *_: "", "exit": stop, "quit": stop}
        tree = AsScript().visit(copy.deepcopy(source.tree))
        with importing_beside(source.file), seeded(), reading_only(), np.errstate(
                all="ignore"), contextlib.redirect_stdout(io.StringIO()):
            np.random.seed(0)
            for statement in tree.body:
                if not self.run(statement, namespace):
                    break

    def run(self, statement: ast.stmt, namespace: dict[str, Any]) -> bool:
        """Run a statement of the top; False if that is enough."""
        self.open = []
        code = compile(ast.fix_missing_locations(ast.Module([statement], [])), self.file, "exec", dont_inherit=True)
        try:
            with limited(max(self.until - time.process_time(), 0.01)):  # a loop may call no function
                sys.setprofile(self.note)
                exec(code, namespace)
        except (Enough, TooSlow):
            return False
        except (Exception, SystemExit):  # of what it binds, other statements may need nothing
            pass
        finally:
            sys.setprofile(None)
        return True

    def note(self, frame: FrameType, event: str, value: Any) -> None:
        code = frame.f_code
        if code.co_filename != self.file or code.co_name.startswith("<") or code.co_flags & (
                inspect.CO_GENERATOR | inspect.CO_OPTIMIZED) != inspect.CO_OPTIMIZED:  # no comprehension, no class
            return
        if event == "call":
            if len(self.calls) >= MOST_CALLS or time.process_time() > self.until:
                sys.setprofile(None)
                raise Enough
            given = {name: frame.f_locals[name] for name in code.co_varnames[:code.co_argcount + code.co_kwonlyargcount
                     + bool(code.co_flags & inspect.CO_VARARGS)] if name in frame.f_locals}
            first = next(iter(given.values()), None)
            is_method = any(getattr(vars(cls).get(code.co_name), "__code__", None) is code
                            for cls in type(first).__mro__)
            owner = given.pop(next(iter(given))) if is_method else None
            self.counts[code] = self.counts.get(code, 0) + 1
            self.calls.append(Call(code.co_name, owner, self.open[-1] if self.open else -1, given, None if self.counts[
                code] > MOST_COPIED else {name: kept(one) for name, one in given.items()}))
            self.open.append(len(self.calls) - 1)
        elif event == "return" and self.open:
            call = self.calls[self.open.pop()]
            call.result, call.ended = value, True


def kept(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # a generator, a module, a file
        return value


class AsScript(ast.NodeTransformer):
    """The file with its `if __name__ == "__main__":` taken."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant("__main__"), node) if node.id == "__name__" else node


def stop(*_: Any) -> None:
    raise Enough


READING = [False]


@contextlib.contextmanager
def reading_only() -> Iterator[None]:
    """Whatever would change a file or begin a process fails."""
    if not READING[1:]:
        READING.append(True)
        sys.addaudithook(refuse)  # for good: it cannot be taken away
    READING[0] = True
    try:
        yield
    finally:
        READING[0] = False


def refuse(event: str, given: tuple) -> None:
    if READING[0] and (event in WRITES or (event == "open" and isinstance(given[2], int) and given[2] & (
            os.O_WRONLY | os.O_RDWR))):
        raise PermissionError(f"{event} is not allowed while the file is watched")
