"""Cached programs and buffers: their number, their bytes, and when they are evicted."""

import gc
import linecache
import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.timeloop.cache import Allocator, Buffers, Pool, Programs, pool, programs, rounded


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    programs.clear()
    assert pool.nbytes == 0 == len(pool.idle)


def trained(layer, steps, batch=2):
    loss = (layer(np.ones((steps, batch, layer.input_size), "f"))[0] ** 2).sum()
    loss.backward()
    return loss.item()


def texts():
    return sum(name.startswith("<minigrad planned") for name in linecache.cache)


def test_one_program_and_one_set_of_buffers_serve_all_lengths():
    layer, before = nn.LSTM(3, 4, rng=0), texts()
    for steps in [*range(1, 40), *range(39, 0, -7)]:
        trained(layer, steps)
    assert (len(programs), texts() - before, len(pool.idle)) == (1, 1, 1)
    (buffers,) = pool.idle
    assert 39 <= buffers.capacity <= 44


def test_short_sequences_in_a_long_buffer_have_the_same_bits():
    layer = nn.GRU(3, 4, rng=0)
    for steps in (1, 2, 31, 32, 33, 64, 100):
        programs.clear()
        alone = trained(layer, steps), {name: x.grad for name, x in layer.named_parameters()}
        layer.zero_grad()
        programs.clear()
        trained(layer, 150)
        layer.zero_grad()
        again = trained(layer, steps), {name: x.grad for name, x in layer.named_parameters()}
        layer.zero_grad()
        assert alone[0] == again[0]
        for name, d in alone[1].items():
            np.testing.assert_array_equal(d, again[1][name])


def test_models_of_one_shape_share_a_program_whatever_their_rng():
    for seed in (0, np.random.default_rng(1), None):
        trained(nn.LSTM(3, 4, rng=seed), 5)
    assert len(programs) == 1 and len(pool.idle) == 1


def test_the_buffers_of_dropped_models_take_an_eighth_of_the_pool_at_most(monkeypatch):
    monkeypatch.setattr(pool, "limit", 4 << 20)
    for size in range(8, 24):
        trained(nn.LSTM(3, size, rng=0), 50)
    gc.collect()
    assert len(programs) == 16
    assert 0 < pool.nbytes <= pool.limit // 8
    kept = nn.LSTM(3, 24, rng=0)
    trained(kept, 400)
    assert pool.nbytes > pool.limit // 8  # the buffers of a live model may take more


def test_a_function_that_makes_new_weights_finds_its_buffers_again():
    layer = nn.RNN(3, 4, rng=0)
    cell = layer.layers["l0"]

    def loss(W):
        h, _ = mg.scan(lambda h, x: ((k := mg.tanh(W @ mg.concatenate([h, x]))), k),
                       np.zeros((4, 2)), np.ones((9, 3, 2)))
        return (h ** 2).sum()
    mg.grad(loss)(cell.W.data.astype(float))
    (first,) = pool.idle
    mg.grad(loss)(cell.W.data.astype(float))
    assert list(pool.idle) == [first]


def test_a_text_is_freed_with_its_program(monkeypatch):
    monkeypatch.setattr(programs, "limit", 5)
    before = texts()
    for size in range(1, 20):
        mg.scan(lambda h, x: (np.tanh(h + x), h), np.zeros(size), np.ones((2, size)))
    assert len(programs) == 5 == texts() - before == len(pool.idle)
    programs.clear()
    assert texts() == before and pool.nbytes == 0


def test_the_text_of_derive_is_freed_with_its_result():
    before = len(linecache.cache)
    derived = mg.derive(lambda x: mg.tanh(x), np.ones(3))
    assert len(linecache.cache) == before + 1
    del derived
    gc.collect()
    assert len(linecache.cache) == before


def test_a_run_that_outlives_its_program_keeps_no_buffers():
    layer = nn.LSTM(3, 4, rng=0)
    loss = layer(np.ones((5, 2, 3), "f"))[0].sum()
    programs.clear()
    loss.backward()
    assert pool.nbytes == 0
    assert layer.layers["l0"].W.grad is not None


def make(steps):
    return (np.empty((steps, 1000)),), [()] * steps


def test_the_least_recently_used_buffers_are_evicted_first():
    small, allocator = Pool(limit=100_000), Allocator(make, None)
    first, second, third = (small.take(allocator, 5) for _ in range(3))
    for buffers in (first, second, third):
        small.give(buffers)
    assert list(small.idle) == [second, third] and small.nbytes == second.nbytes + third.nbytes
    assert small.take(allocator, 4) in (second, third)
    assert small.take(allocator, 50).capacity >= 50  # evicts the shorter one that was left
    assert not small.idle and small.nbytes == 0


class Sly(Buffers):
    """A set of buffers that is evicted while the pool chooses it, as by a dying weight."""

    @property
    def capacity(self):
        self.pool.drop(self.allocator)
        return 9

    @capacity.setter
    def capacity(self, steps):
        self.pool = None


def test_a_weight_may_die_while_the_pool_is_at_work():
    """The garbage collector may run at any allocation, in the thread that has the lock."""
    small, allocator = Pool(limit=1_000_000), Allocator(make, None)
    for _ in range(3):
        buffers = Sly(allocator, 5)
        buffers.pool = small
        small.give(buffers)
    assert small.nbytes > 0
    fresh = small.take(allocator, 4)
    assert fresh.capacity >= 4 and not isinstance(fresh, Sly)
    assert small.nbytes == 0 and not small.idle and not allocator.idle


def test_many_threads_use_and_evict_programs_at_once():
    kept, wrong = Programs(limit=3), []

    class Program:
        pass

    def use(n):
        for i in range(2000):
            key = ("about", (n * 7 + i) % 9)
            if kept.get(key) is None:
                kept.put(key, Program())
            if len(kept) > 3:
                wrong.append(key)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(use, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_threads_that_scan_many_shapes_at_once_get_right_results(monkeypatch):
    monkeypatch.setattr(programs, "limit", 2)
    wrong = []

    def use(n):
        for size in range(1, 8):
            final, _ = mg.scan(lambda h, x: (h + 2.0 * x, h), np.zeros(size), np.ones((n + 1, size)))
            if final.tolist() != [2.0 * (n + 1)] * size:
                wrong.append((n, size))
    threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("steps", [1, 2, 15, 16, 17, 100, 999, 10_000])
def test_a_length_is_rounded_up_by_an_eighth_at_most(steps):
    assert steps <= rounded(steps) <= steps * 9 / 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_a_step_frees_serves_the_next_step():
    """Before, the arrays of each step were new pages: 670 page faults in a step of 10 ms."""
    script = """if True:
        import resource
        import numpy as np
        import minigrad as mg
        x = mg.tensor(np.ones((500, 500), "f"), requires_grad=True)
        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for n in range(30):
            if n == 10:
                before = faults()
            (mg.tanh(x) * x + x * 2.0).sum().backward()
            x.grad = None
        print((faults() - before) / 20)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")})
    assert float(done.stdout) < 100  # an array is 244 pages
