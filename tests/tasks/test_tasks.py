"""Every task against its definition: batches, targets, and scores of answers."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import defaultdict

import numpy as np
import pytest

from minigrad.engine.ops import log_softmax
from minigrad.tasks import (
    TASKS,
    Adding,
    Adding1997,
    AnBn,
    Copy,
    LongLag,
    Parity,
    Reber,
    Sine,
    Task,
    TemporalOrder,
    TemporalOrder3,
    TemporalOrder4,
    Text,
)
from minigrad.tasks.reber import embed, inner_strings

ROSES = "a rose is a rose is a rose. " * 40
ROWS = [Adding(), Adding(2), Adding(31), Adding1997(), Adding1997(22), Copy(), Copy(1), Reber(), TemporalOrder(),
        TemporalOrder(20), TemporalOrder3(30), TemporalOrder4(), LongLag(), LongLag(2), Parity(),
        Parity(7, only_at_end=True), AnBn(), AnBn(1, furthest=65), Sine(), Sine(11), Text(), Text(text=ROSES)]
CONSTANT = [task for task in ROWS if isinstance(task, (LongLag, Text)) or task == AnBn(1, furthest=65)]  # constant data


def table(rows):
    return pytest.mark.parametrize("task", rows, ids=lambda task: re.sub(r"\W+", "-", repr(task)).strip("-"))


def kind_of(task):
    return next(kind for kind in DEFINITIONS if isinstance(task, kind))


# -- batches --------------------------------------------------------------------------------------


@table(ROWS)
@pytest.mark.parametrize("size", [1, 5])
def test_shapes_types_and_padding(task, size):
    batch = task.batch(0, size)
    T, B = batch.x.shape[:2]
    assert B == size and batch.first is True
    if task.symbols:
        assert batch.x.shape == (T, B) and batch.x.dtype == np.int64
        assert 0 <= batch.x.min() and batch.x.max() < task.inputs
    else:
        assert batch.x.shape == (T, B, task.inputs) and batch.x.dtype == np.float32
    if task.loss == "cross_entropy":
        assert batch.targets.shape == (T, B) and batch.targets.dtype == np.int64
        assert 0 <= batch.targets.min() and batch.targets.max() < task.outputs
    else:
        assert batch.targets.shape == (T, B, task.outputs) and batch.targets.dtype == np.float32
    lengths = np.full(B, T) if batch.lengths is None else batch.lengths
    assert lengths.shape == (B,) and lengths.dtype == np.int64 and 1 <= lengths.min() and lengths.max() <= T
    past = np.arange(T)[:, None] >= lengths
    assert not batch.x[past].any()
    if batch.mask is not None:
        assert batch.mask.shape == (T, B) and batch.mask.dtype == bool and batch.mask.any(axis=0).all()
        assert not batch.mask[past].any() and not batch.targets[~batch.mask].any()


@table(ROWS)
def test_the_same_rng_makes_the_same_bits(task):
    rng = np.random.default_rng(7)
    batches = task.batch(7, 4), task.batch(rng, 4), task.batch(rng, 4), task.batch(8, 4)
    tests = task.test(7), task.test(np.random.default_rng(7))
    for one, two in (batches[:2], tests):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))
    if task not in CONSTANT:
        assert not any(np.array_equal(batches[0].x, other.x) for other in batches[2:])
    if not isinstance(task, Text):
        assert tests[0].x.shape[1] == task.test_size


# -- the targets, by definition -----------------------------------------------------------------------------------
# A function takes a task and x of one sequence, and returns {step: target} for the steps that count. If targets are
# the next symbols, it takes the whole string and checks that the language contains it.


def adding(task, x):
    return {len(x) - 1: sum(number for number, mark in x.tolist() if mark == 1)}


def adding_1997(task, x):
    assert x[0, 1] == x[-1, 1] == -1 and task.length <= len(x) <= 1.1 * task.length
    return {len(x) - 1: 0.5 + sum(number for number, mark in x.tolist() if mark == 1) / 4}


def copy(task, x):
    symbols, answers = task.names
    string = "".join(symbols[symbol] for symbol in x)
    assert re.fullmatch(f"[0-7]{{10}}·{{{task.length - 1}}}!·{{10}}", string)
    return dict(enumerate(map(answers.index, "·" * (task.length + 10) + string[:10])))


def order(task, x):
    symbols, answers = task.names
    string = "".join(symbols[symbol] for symbol in x)
    assert re.fullmatch("E[abcdXY]+B", string) and task.length <= len(string) <= 1.1 * task.length
    marks = re.sub("[^XY]", "", string)
    assert len(marks) == {TemporalOrder: 2, TemporalOrder3: 3, TemporalOrder4: 4}[type(task)]
    return {len(x) - 1: answers.index(marks)}


def parity(task, x):
    odd = {t: (x[:t + 1] == 1).sum() % 2 for t in range(len(x))}
    return {len(x) - 1: odd[len(x) - 1]} if task.only_at_end else odd


def sine(task, x):
    middle = 2 + abs(x[2:-1]).argmax()  # x[t + 1] + x[t − 1] = 2 cos ω x[t]
    cosine = (x[middle + 1] + x[middle - 1]) / (2 * x[middle])
    assert np.cos(2 * np.pi / 10) - 1e-3 < cosine < np.cos(2 * np.pi / 30) + 1e-3
    return {t: 2 * cosine * x[t] - x[t - 1] for t in range(10, len(x))}


LONG_LAG = "".join(map(chr, range(1000, 1200)))  # the symbols of LongLag have no names


def follows(language):
    def asked(task, string):
        symbols = task.names[0] or LONG_LAG
        assert task.names[0] == task.names[1]
        assert re.fullmatch(language(task), "".join(symbols[code] for code in string), re.DOTALL)
        return dict(enumerate(string[1:]))
    asked.of_strings = True
    return asked


def reber(task):
    inner = "B((TS*X|PT*VP)(XT*VP)*(SE|XT*VVE)|PT*VVE)"
    return f"BT{inner}TE|BP{inner}PE"


def anbn(task):
    return "|".join(f"#a{{{n}}}b{{{n}}}#" for n in range(1, task.length + 1))


def long_lag(task):
    return "(.)" + LONG_LAG[:task.length - 1] + r"\1"


def text(task):
    return ".+"


DEFINITIONS = {Adding: adding, Adding1997: adding_1997, Copy: copy, Reber: follows(reber), TemporalOrder: order,
               LongLag: follows(long_lag), Parity: parity, AnBn: follows(anbn), Sine: sine, Text: follows(text)}


@table(ROWS)
def test_targets_follow_the_definition(task):
    batch, definition = task.batch(3, 40), DEFINITIONS[kind_of(task)]
    T, B = batch.x.shape[:2]
    lengths = np.full(B, T) if batch.lengths is None else batch.lengths
    mask = np.arange(T)[:, None] < lengths if batch.mask is None else batch.mask
    for i, length in enumerate(lengths):
        x, targets = batch.x[:length, i], batch.targets[:length, i].reshape(length)
        asked = definition(task, np.append(x, targets[-1]) if hasattr(definition, "of_strings") else x)
        assert np.flatnonzero(mask[:, i]).tolist() == list(asked)
        np.testing.assert_allclose(targets[list(asked)], np.array(list(asked.values())).reshape(-1), atol=2e-5)


def test_positions_of_the_marks_of_adding():
    marks = Adding(20).batch(0, 4000).x[:, :, 1]
    assert (marks.sum(axis=0) == 2).all() and (marks[:10].sum(axis=0) == 1).all()
    assert (marks.mean(axis=1) > 0).all()
    batch = Adding1997(40).batch(0, 20_000)
    marks = batch.x[:, :, 1]
    assert set(batch.lengths) == {40, 41, 42, 43, 44}
    seen = (marks == 1).mean(axis=1)
    # one mark in the first ten steps, the other in the first 19 free ones; step 0 has its own
    np.testing.assert_allclose(seen[1:10], 1 / 10 + 9 / 10 / 19, atol=0.01)
    np.testing.assert_allclose(seen[10:20], 1 / 19, atol=0.01)
    assert not seen[20:].any()


@pytest.mark.parametrize("task, stretches", [
    (TemporalOrder(100), [(10, 20), (50, 60)]), (TemporalOrder3(100), [(10, 20), (33, 43), (66, 76)]),
    (TemporalOrder4(100), [(10, 20), (30, 40), (50, 60), (70, 80)]), (TemporalOrder(50), [(5, 10), (25, 30)])])
def test_positions_of_x_and_y_in_temporal_order(task, stretches):
    x = task.batch(0, 4000).x
    seen = ((x == 4) | (x == 5)).mean(axis=1)
    expected = np.zeros(len(x))
    for first, last in stretches:
        expected[first:last + 1] = 1 / (last + 1 - first)
    np.testing.assert_allclose(seen, expected, atol=0.03)
    assert abs((x == 4).sum() / (x == 5).sum() - 1) < 0.06


def test_legal_symbols_of_a_reber_string():
    """`legal` against the symbols that followed, for every prefix that occurs often."""
    task, followers = Reber(), defaultdict(set)
    rng = np.random.default_rng(0)
    batch = embed(inner_strings(rng, 8000, range(4)), rng.integers(1, 3, 8000))  # the whole language
    legal, count = task.legal(batch.x), defaultdict(int)
    allowed = {}
    for i, length in enumerate(batch.lengths):
        for t in range(length):
            beginning = batch.x[:t + 1, i].tobytes()
            followers[beginning].add(int(batch.targets[t, i]))
            allowed[beginning] = set(np.flatnonzero(legal[t, i]).tolist())
            count[beginning] += 1
    often = [beginning for beginning, n in count.items() if n >= 25]
    assert len(often) > 150 and all(followers[beginning] == allowed[beginning] for beginning in often)


def test_no_reber_string_of_a_test_is_trained_on():
    """The parts share no inner string, and a test has none twice with the same outer symbol."""
    def inner(batch):
        return [bytes(batch.x[2:length - 1, i].astype(np.uint8)) for i, length in enumerate(batch.lengths)]

    task = Reber()
    known = set(inner(task.batch(0, 5000)))
    for one, other in ((task.test(1), task.validation(2)), (task.validation(1), task.test(1))):
        strings = inner(one)
        assert len(strings) == 256 and len(set(zip(strings, one.x[1]))) == 256 and len(set(strings)) == 128
        assert not known & set(strings) and not set(strings) & set(inner(other))


# -- scores --------------------------------------------------------------------------------------


def perfect(task, batch):
    """The best possible outputs."""
    if task.loss == "mse":
        return batch.targets
    if task.loss == "binary_cross_entropy":
        return 40 * batch.targets - 20
    if isinstance(task, Reber):
        return 20.0 * task.legal(batch.x)
    return 20 * np.eye(task.outputs)[batch.targets]


PERFECT = {Adding: 0, Adding1997: 1, Copy: 1, Reber: 1, TemporalOrder: 1, LongLag: 0, Parity: 1, Sine: 0, Text: 0}


@table(ROWS)
def test_perfect_answers_solve_the_task(task):
    batch = task.test(1)
    value = task.metric(perfect(task, batch), batch)
    assert isinstance(value, float) and task.solved(value)
    assert value == pytest.approx(PERFECT.get(kind_of(task), getattr(task, "furthest", None)), abs=1e-6)
    if batch.mask is not None:  # other steps do not count
        noise = np.random.default_rng(0).normal(size=(*batch.x.shape[:2], task.outputs)) * 100
        assert task.metric(np.where(batch.mask[:, :, None], perfect(task, batch), noise), batch) == value


def ones(batch, value, outputs=1):
    return np.full((*batch.x.shape[:2], outputs), value)


def first_class(task, batch):
    return 20 * ones(batch, np.arange(task.outputs) == 0, task.outputs)


def guess_copy(task, batch):
    outputs = 20.0 * ones(batch, np.arange(9) == 8, 9)
    outputs[-10:] = 20.0 * (np.arange(9) < 1)
    return outputs


def guess_reber(task, batch):
    """Follow the grammar, but always guess T as the last symbol but one."""
    legal = task.legal(batch.x)
    legal[batch.lengths - 2, np.arange(len(batch.lengths))] = np.arange(7) == 1
    return 20.0 * legal


def guess_long_lag(task, batch):
    outputs = 40.0 * np.eye(task.outputs)[batch.targets]
    outputs[-1] = 40.0 * (np.arange(task.outputs) >= task.length - 1)
    return outputs


def guess_anbn(task, batch):
    return 20 * np.eye(3)[np.array([1, 1, 0])[batch.x]]  # a after # and a, # after b


def guess_sine(task, batch):
    known = task.batch(99, 20_000)
    x, y = known.x[known.mask].ravel(), known.targets[known.mask].ravel()
    return batch.x * (x @ y) / (x @ x)  # least squares


def guess_text(task, batch):
    """Bigram frequencies of the training text."""
    n = task.inputs
    pairs, single = np.zeros((n, n)), np.ones(n)
    np.add.at(pairs, (task.train[:-1], task.train[1:]), 1)
    np.add.at(single, task.train, 1)
    pairs += single / single.sum()
    return np.log(pairs / pairs.sum(axis=1, keepdims=True))[batch.x]


GUESSES = {Adding: lambda task, batch: ones(batch, 1.0), Adding1997: lambda task, batch: ones(batch, 0.5),
           Copy: guess_copy, Reber: guess_reber, TemporalOrder: first_class, LongLag: guess_long_lag,
           Parity: lambda task, batch: ones(batch, 1.0), AnBn: guess_anbn, Sine: guess_sine, Text: guess_text}


@table(ROWS)
def test_the_baseline_is_the_metric_of_the_memoryless_guess(task):
    """Within four standard errors on twenty test sets; a text has one, whose streams begin without context."""
    sets = [task.test(seed) for seed in range(1 if isinstance(task, Text) else 20)]
    values = [task.metric(GUESSES[kind_of(task)](task, batch), batch) for batch in sets]
    margin = 0.01 if isinstance(task, Text) else 4 * np.std(values) / len(values) ** 0.5 + 1e-6
    assert np.mean(values) == pytest.approx(task.baseline, abs=margin)
    assert not task.solved(task.baseline)


def test_no_other_constant_beats_the_guess():
    for task, best in ((Adding(10), 1.0), (Adding1997(30), 0.5)):
        batch = task.batch(0, 20_000)
        values = {c: task.metric(ones(batch, c), batch) for c in (best, *best + np.linspace(-0.3, 0.3, 8))}
        assert (max if task.higher_is_better else min)(values, key=values.get) == best


def test_no_guess_from_the_current_symbol_gets_a_reber_string_right():
    """The legal successors of the second symbol and of the same symbol near the end are disjoint."""
    batch = Reber().batch(0, 2000)
    legal, last, each = Reber().legal(batch.x), batch.lengths - 1, np.arange(2000)
    assert (batch.x[last, each] == batch.x[1]).all() and not (legal[1] & legal[last, each]).any()


def test_anbn_counts_only_determined_symbols():
    task = AnBn(furthest=70)
    batch = task.test(0)
    outputs = perfect(task, batch)
    outputs[batch.x == 1] = [20, 0, 0]  # after an a both are legal, so outputs do not count
    assert task.metric(outputs, batch) == 70
    outputs[2 * 6, 6 - 1] = [0, 0, 20]  # one b too many after a⁶b⁶; longer strings, though right, no longer count
    assert task.metric(outputs, batch) == 5
    outputs[0] = [0, 0, 20]
    assert task.metric(outputs, batch) == 0 and not task.solved(0)


def test_the_optimal_cross_entropy_of_anbn():
    task = AnBn()
    every = task.strings(np.arange(1, 11))  # equally likely, so their mean is the mean over the language
    p = np.zeros((*every.x.shape, 3))
    for t, i in zip(*np.nonzero(every.mask)):
        if every.x[t, i] == 1:
            p[t, i] = [0, 1 - 1 / (11 - t), 1 / (11 - t)]  # t a's have been read
        else:
            p[t, i, every.targets[t, i]] = 1
    picked = np.take_along_axis(p, every.targets[:, :, None], axis=2)[:, :, 0][every.mask]
    assert -np.log(picked).mean() == pytest.approx(task.optimum, rel=1e-12)
    assert task.optimum == pytest.approx(0.1919, abs=1e-4) and AnBn(1).optimum == 0
    geometric = np.arange(500, 1500)  # Lan et al.: bits of long strings, p = 0.3
    bits = (geometric - 1) * np.log2(1 / 0.7) + np.log2(1 / 0.3)
    assert bits.sum() / (2 * geometric + 1).sum() == pytest.approx(0.257, abs=1e-3)


@pytest.mark.parametrize("length", [1, 50])
def test_the_memoryless_loss_of_copy(length):
    task = Copy(length)
    batch = task.batch(0, 2000)
    p = np.zeros((*batch.x.shape, 9))
    p[:-10, :, 8], p[-10:, :, :8] = 1, 1 / 8
    picked = np.take_along_axis(p, batch.targets[:, :, None], axis=2)
    assert -np.log(picked).mean() == pytest.approx(task.plateau, rel=1e-9)


def test_temporal_order_needs_confident_outputs():
    task = TemporalOrder()
    batch = task.batch(0, 1)
    for p, right in ((0.71, 1), (0.69, 0)):
        outputs = np.log(np.where(np.eye(4)[batch.targets] == 1, p, (1 - p) / 3))
        assert task.metric(outputs, batch) == right


def test_log_softmax_of_large_numbers():
    z = np.array([[1000.0, 0.0], [-1000.0, 0.0], [3.0, 3.0]])
    np.testing.assert_allclose(log_softmax(z), [[0, -1000], [-1000, 0], [-np.log(2)] * 2])


# -- descriptions and refusals -------------------------------------------------------------------


def test_the_tasks_by_name():
    assert {kind_of(task) for task in ROWS} <= set(TASKS.values())
    for name, kind in TASKS.items():
        task, first = kind(), inspect.getdoc(kind).partition("\n")[0]
        assert task.name == name and kind.__doc__ is not Task.__doc__
        assert 20 < len(first) < 100 and first.endswith(".")
        assert task.loss in ("cross_entropy", "mse", "binary_cross_entropy") and isinstance(task.metric_name, str)
        assert isinstance(task.baseline, float) and not task.solved(float("nan"))
        assert {"cell", "hidden", "batch", "steps", "lr", "optimizer", "clip"} <= set(kind.recipe)
        for names, number in zip(task.names, (task.inputs, task.outputs)):
            assert names is None or (task.symbols and len(names) == len(set(names)) == number)
        assert repr(task).startswith(f"{kind.__name__}(") and task == kind()


@pytest.mark.parametrize("make, sentence", [
    (lambda: Adding(1), "adding takes a whole number of 2 or more as length, not 1"),
    (lambda: Adding(2.5), "adding takes a whole number of 2 or more as length, not 2.5"),
    (lambda: Adding1997(21), "adding-1997 .* 22 or more as length, not 21"),
    (lambda: Copy(0), "copy .* 1 or more as length, not 0"),
    (lambda: TemporalOrder(19), "temporal-order .* 20 or more"),
    (lambda: TemporalOrder3(-5), "temporal-order-3 .* 20 or more"),
    (lambda: LongLag(1), "long-lag .* 2 or more"),
    (lambda: Parity(True), "parity .* not True"),
    (lambda: AnBn(0), "anbn .* 1 or more as length"),
    (lambda: AnBn(5, furthest=0), "anbn .* 65 or more as furthest"),
    (lambda: Sine(10), "sine .* 11 or more"),
    (lambda: Text(file="a.txt", text=ROSES), "both a text and the file a.txt"),
    (lambda: Text(text=b"bytes" * 9), "a text is a str, not bytes"),
    (lambda: Adding().batch(0, 0), "adding makes batches of one sequence or more, a whole number, not of 0"),
    (lambda: Reber().batch(0, -1), "reber .* not of -1"),
    (lambda: Sine().batch(0, 2.5), "sine .* not of 2.5"),
    (lambda: Text(text=ROSES).batch(0, "3"), "text .* not of '3'"),
    (lambda: Adding().metric(np.zeros((100, 3)), Adding().batch(0, 3)),
     r"adding measures outputs of shape \(100, 3, 1\), not \(100, 3\)"),
])
def test_bad_options_and_outputs_are_refused_in_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@table([Adding(), Copy(), Reber(), TemporalOrder(), LongLag(), Parity(), AnBn(), Sine(), Text(text=ROSES)])
def test_nan_outputs_solve_nothing(task):
    batch = task.test(0)
    outputs = np.array(perfect(task, batch), float)
    outputs[0, 0, 0] = np.nan
    value = task.metric(outputs, batch)
    assert np.isnan(value) and not task.solved(value)


def test_a_user_defined_task_names_what_is_missing():
    class Mine(Task):
        name, inputs, outputs = "mine", 1, 1

    with pytest.raises(NotImplementedError, match="Mine makes no data yet: write its method make"):
        Mine().batch(0, 1)
    with pytest.raises(NotImplementedError, match="Mine has no measure yet"):
        Mine().metric(np.zeros((100, 2, 1)), Adding().batch(0, 2))
