"""Contexts as decorators: no_grad is active while the body of a generator or a coroutine runs, not in between."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import minigrad as mg
from minigrad.engine.context import recording

W = mg.tensor(1.0, requires_grad=True)


def tracked():
    return (W * 2.0).requires_grad


def test_a_function_runs_inside_and_keeps_its_name():
    @mg.no_grad()
    def measure(x, *, twice=False):
        """What it says."""
        return tracked(), x, twice
    assert measure(3, twice=True) == (False, 3, True) and tracked()
    assert (measure.__name__, measure.__doc__) == ("measure", "What it says.")
    with pytest.raises(ZeroDivisionError):
        mg.no_grad()(lambda: 1 / 0)()
    assert tracked()


def test_one_context_can_be_entered_again_and_within_itself():
    context = mg.no_grad()
    for _ in range(2):
        with context:
            with context:
                assert not tracked()
            assert not tracked()
        assert tracked()


@mg.no_grad()
def echo(first):
    """Yield whether gradients are recorded, the value sent, and a log of how the generator ends."""
    got, log = first, []
    try:
        while True:
            try:
                got = yield tracked(), got, log
            except KeyError as problem:
                got = repr(problem)
            if got == "end":
                return log
    finally:
        log.append(tracked())


def test_a_generator_runs_inside_and_its_caller_outside():
    run = echo(1)
    assert inspect.isgeneratorfunction(echo)
    assert next(run)[:2] == (False, 1) and tracked()
    assert run.send(2)[:2] == (False, 2) and tracked()
    assert run.throw(KeyError("a"))[:2] == (False, "KeyError('a')") and tracked()
    with pytest.raises(StopIteration) as end:
        run.send("end")
    assert end.value.value == [False] and tracked()
    run = echo(1)
    log = next(run)[2]
    run.close()
    assert log == [False] and tracked()
    run = echo(1)
    log = next(run)[2]
    del run
    assert log == [False] and tracked()
    run = echo(1)
    next(run)
    with pytest.raises(ValueError, match="not for it"):
        run.throw(ValueError("not for it"))
    assert tracked()


def test_two_generators_that_take_turns_do_not_disturb_each_other():
    one, other = echo(1), echo(2)
    for _ in range(3):
        assert not next(one)[0] and tracked() and not next(other)[0] and tracked()
    with mg.no_grad():
        next(one)
        assert not tracked()
    assert tracked()


@mg.no_grad()
async def waiting():
    seen = [tracked()]
    await asyncio.sleep(0)
    return [*seen, tracked()]


def test_a_coroutine_runs_inside_and_who_waits_for_it_outside():
    async def main():
        result, others = asyncio.gather(waiting(), waiting()), []
        for _ in range(3):
            others.append(tracked())
            await asyncio.sleep(0)
        return await result, await waiting(), others, tracked()
    assert inspect.iscoroutinefunction(waiting)
    assert asyncio.run(main()) == ([[False, False]] * 2, [False, False], [True] * 3, True)
    by_hand = waiting()
    by_hand.send(None)
    assert recording.get()  # between its steps
    by_hand.close()


@mg.no_grad()
async def stream(n):
    log.clear()
    try:
        for i in range(n):
            await asyncio.sleep(0)
            try:
                got = yield i, tracked()
            except KeyError:
                got = "caught"
            log.append(got)
    finally:
        await asyncio.sleep(0)
        log.append(tracked())


log: list = []


def test_an_async_generator_runs_inside_and_its_caller_outside():
    async def main():
        async for i, inside in stream(2):
            assert i < 2 and not inside and tracked()
        assert log == [None, None, False]
        run = stream(3)
        assert await anext(run) == (0, False) and await run.asend("sent") == (1, False) and tracked()
        assert await run.athrow(KeyError("a")) == (2, False) and tracked()
        await run.aclose()
        assert log == ["sent", "caught", False] and tracked()
    assert inspect.isasyncgenfunction(stream)
    asyncio.run(main())


def test_methods_are_decorated_too():
    class Model:
        @mg.no_grad()
        def sample(self, n):
            for _ in range(n):
                yield tracked()
    assert list(Model().sample(2)) == [False, False] and tracked()


def test_an_object_whose_call_is_a_generator_or_a_coroutine_is_decorated_as_one():
    class Steps:
        def __call__(self):
            yield recording.get()

    class Waits:
        async def __call__(self):
            return recording.get()
    assert list(mg.no_grad()(Steps())()) == [False]
    assert asyncio.run(mg.no_grad()(Waits())()) is False
