"""Whether ops are recorded, who watches them, and `no_grad`: contexts of a thread or async task, which also decorate.

Around a generator or a coroutine, a context is active only while its body runs. contextlib's decorators are active
during the call only, and calling a generator function does not run its body.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)


class Context:
    """Base of context managers that decorate functions, generators, coroutines and async generators."""

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(self, *exception: Any) -> None:
        raise NotImplementedError

    def __call__(self, f: F) -> F:
        fresh = type(self)  # one for each call, as calls may overlap

        def is_one(kind: Callable[[Any], bool]) -> bool:
            return kind(f) or kind(getattr(f, "__call__", None))  # noqa: B004 — a callable object
        if is_one(inspect.isasyncgenfunction):
            async def around(*args, **kwargs):
                body, context = f(*args, **kwargs), fresh()
                act, value = body.asend, None
                while True:
                    try:
                        out = await steps(act(value), context)
                    except StopAsyncIteration:
                        return
                    try:
                        act, value = body.asend, (yield out)
                    except GeneratorExit:
                        await steps(body.aclose(), context)
                        raise
                    except BaseException as problem:
                        act, value = body.athrow, problem
        elif is_one(inspect.iscoroutinefunction):
            async def around(*args, **kwargs):
                return await steps(f(*args, **kwargs), fresh())
        elif is_one(inspect.isgeneratorfunction):
            def around(*args, **kwargs):
                return (yield from steps(f(*args, **kwargs), fresh()))
        else:
            def around(*args, **kwargs):
                with fresh():
                    return f(*args, **kwargs)
        return functools.wraps(f)(around)


@types.coroutine
def steps(body: Any, context: Context) -> Any:
    """Run a generator or an awaitable. Each of its steps runs inside the context."""
    act, value = body.send, None
    while True:
        try:
            with context:
                out = act(value)
        except StopIteration as done:
            return done.value
        try:
            act, value = body.send, (yield out)
        except GeneratorExit:
            with context:
                body.close()
            raise
        except BaseException as problem:
            act, value = body.throw, problem


# Both are per thread and per async task. A watcher is called in place of every op that has a Tensor among its inputs.
# Anomaly detection is a watcher, so it costs nothing while it is off.
recording: ContextVar[bool] = ContextVar("recording", default=True)
watcher: ContextVar[Any] = ContextVar("watcher", default=None)


class no_grad(Context):
    """Record nothing inside, in this thread and async task only. Also a decorator, of generators too."""

    def __init__(self) -> None:
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(recording.set(False))

    def __exit__(self, *exception: Any) -> None:
        recording.reset(self._tokens.pop())
