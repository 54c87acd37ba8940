"""Sequences of one's own: padding, batches, splits and a task; odd input works or gets a sentence."""

from collections import Counter

import numpy as np
import pytest

import minigrad as mg
from minigrad import data
from minigrad.files import archive
from minigrad.training import Run, SequenceModel, Settings, Trainer

WORDS = [f".{word}." for word in "anna emma lena nina hanna ella mia lea ida eva".split()]
RAGGED = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]


def test_pad_puts_sequences_side_by_side():
    x, mask, lengths = data.pad(RAGGED)
    assert x.shape == (3, 3, 1) and x.dtype == np.float32 and lengths.tolist() == [2, 1, 3]
    assert x[:, :, 0].T.tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert mask.T.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    x, _, _ = data.pad([np.arange(6).reshape(3, 2), np.ones((1, 2))])
    assert x.shape == (3, 2, 2) and x.dtype == np.float32
    x, _, _ = data.pad([[1, 2], [True]])
    assert x.dtype == np.int64 and x.T.tolist() == [[1, 2], [1, 0]]
    assert data.pad([mg.tensor([1.0, 2.0], requires_grad=True)])[0].shape == (2, 1, 1)
    assert data.pad(np.zeros((4, 3, 2)))[0].shape == (3, 4, 2)
    assert data.pad([[1, 2], [0.5]])[0].dtype == np.float32  # some have integers: all are numbers


@pytest.mark.parametrize("sequences, sentence", [
    ([], "sequences is empty"), ("abc", "is a list with an entry for each sequence, not 'abc'"),
    (None, "is a list with an entry for each sequence, not None"), (3, "not 3"), ({"a": [1]}, "not {'a': [1]}"),
    ([[1], []], r"sequences[1] has no steps or no features (shape (0,)): leave it out"),
    ([np.zeros((2, 0))], "has no steps or no features"), ([3], "sequences[0] is 3, and a sequence is a list of steps"),
    ([[1.0, np.nan]], "sequences[0] contains nan at step 1"), ([[np.inf]], "sequences[0] contains inf at step 0"),
    ([[1e300]], "contains 1e+300, which float32 cannot hold"),
    ([np.zeros((2, 3)), np.zeros((2, 2))], "sequences[1] has 2 features, and sequences[0] has 3"),
    ([np.zeros((2, 3), object)], "sequences[0] contains object values"), ([[1, [2, 3]]], "steps have unequal shapes"),
    ([np.zeros((2, 3, 4))], "sequences[0] has shape (2, 3, 4)"), ([[1j]], "contains complex128 values"),
    ([[1], ["a"]], "sequences[1] contains strings, and sequences[0] integers"), ([[2**63]], "no symbol has"),
    (["ab"], "turn them into numbers with codes, names = data.encode(sequences)"), ([[None]], "object values")],
    ids=lambda value: value if isinstance(value, str) else "input")
def test_odd_sequences_are_a_sentence(sequences, sentence):
    with pytest.raises(ValueError) as error:
        data.pad(sequences)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_encode_turns_strings_into_numbers():
    codes, names = data.encode(["ba", "c"])
    assert names == ["a", "b", "c"] and [c.tolist() for c in codes] == [[1, 0], [2]]
    codes, names = data.encode([["the", "fox"], ["fox"]], names=["fox", "the", "dog"])
    assert names == ["fox", "the", "dog"] and [c.tolist() for c in codes] == [[1, 0], [0]]
    with pytest.raises(ValueError, match="sequences contain 'd', which is not among the names"):
        data.encode(["d"], names="abc")


# -- batches ---------------------------------------------------------------------------------------------------------


def test_batches_are_one_pass_with_similar_lengths_side_by_side():
    rng = np.random.default_rng(0)
    sequences = [np.full(n, i) for i, n in enumerate(rng.integers(2, 50, 103))]
    found = list(data.batches(sequences, size=8, rng=1))
    assert sorted(np.concatenate([batch.x[0] for batch in found])) == list(range(103))
    assert [batch.x.shape[1] for batch in found].count(8) == 12
    filled = sum(len(s) - 1 for s in sequences) / sum(batch.x.size for batch in found)
    assert filled > 0.9  # without buckets about a half
    lengths = [batch.x.shape[0] for batch in found]
    assert lengths != sorted(lengths)  # batches come in random order
    again = list(data.batches(sequences, size=8, rng=1))
    assert all(np.array_equal(a.x, b.x) for a, b in zip(found, again))
    assert any(not np.array_equal(a.x, b.x) for a, b in zip(found, data.batches(sequences, size=8, rng=2)))


def test_batches_have_the_targets_of_their_sequences():
    ends, = data.batches(RAGGED, [2, 0, 1], size=10, rng=0)  # more than there are
    assert ends.x.shape == (3, 3, 1) and ends.targets.shape == (3, 3)
    assert dict(zip(ends.lengths.tolist(), ends.targets[ends.lengths - 1, range(3)].tolist())) == {2: 2, 1: 0, 3: 1}
    assert (ends.mask.sum(axis=0) == 1).all()
    steps, = data.batches(RAGGED, [[0.1, 0.2], [0.3], [0.4, 0.5, 0.6]], size=3, rng=0)
    assert np.allclose(steps.targets[..., 0] * 10, np.where(steps.mask, steps.x[..., 0], 0))
    after, = data.batches(["abc", "bcd"], size=2, rng=0)  # equal lengths: no mask
    assert after.mask is after.lengths is None and (after.targets == after.x + 1).all()
    one, = data.batches([[1, 2, 3]], size=5, rng=0)
    assert one.x.tolist() == [[1], [2]] and one.targets.tolist() == [[2], [3]]


def test_a_batch_is_drawn_from_rng_alone_and_each_sequence_is_equally_likely():
    task = data.Sequences([[0.0] * (1 + i % 7) + [float(i)] for i in range(55)], list(range(55)))
    n = len(task.training)
    counts, rng = Counter(), np.random.default_rng(0)
    for _ in range(3000):
        batch = task.batch(rng, 6)
        assert batch.x.shape[1] == 6
        last = -1 if batch.lengths is None else batch.lengths - 1
        counts.update(batch.x[last, range(6), 0].tolist())
    expected = 3000 * 6 / n
    assert len(counts) == n and all(abs(c - expected) < 6 * np.sqrt(expected) for c in counts.values())
    assert np.array_equal(task.batch(5, 6).x, task.batch(5, 6).x)
    assert task.batch(0, 1000).x.shape[1] == n


@pytest.mark.parametrize("sequences, targets, options, sentence", [
    (RAGGED, None, {}, "sequences of numbers need targets"), (RAGGED, [1, 2], {}, "3 sequences and 2 targets"),
    (RAGGED, [[1], [2], [1, 2]], {}, "a target is one answer for the whole sequence, or one for each of its steps"),
    (RAGGED, [1, -1, 1], {}, "targets[1] contains -1, and integers are symbols or classes"),
    (RAGGED, [1.0, np.nan, 1.0], {}, "targets[1] contains nan"), (RAGGED, 3, {}, "targets is a list"),
    (RAGGED, [1, "a", 1], {}, "some targets are numbers and others strings"),
    (RAGGED, [[1, 2], [1], [1, 2]], {"at_end": False}, "targets[2] has shape (2,), and sequences[2] 3 steps"),
    (["ab", "a"], None, {}, "sequences[1] has one step"), ([[1, -2]], None, {}, "sequences[0] contains -2"),
    ([[1, 2]] * 3, [["a", "b"]] * 3, {"at_end": True}, "an answer is one string, or numbers"),
    (RAGGED, [1, 0, 1], {"size": 0}, "size is a whole number above 0, not 0")], ids=lambda value: "")
def test_odd_targets_are_a_sentence(sequences, targets, options, sentence):
    with pytest.raises(ValueError) as error:
        data.batches(sequences, targets, rng=0, **options)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_split_keeps_every_element_once():
    parts = data.split(list(range(25)), rng=0)
    assert [len(part) for part in parts] == [21, 2, 2] and sorted(np.concatenate(parts)) == list(range(25))
    (xs, ys), (more_xs, more_ys) = data.split(list(range(10)), list("abcdefghij"), parts=(7, 3), rng=3)
    assert all("abcdefghij"[x] == y for x, y in zip(xs + more_xs, ys + more_ys)) and len(xs) == 7
    assert data.split([1, 2, 3], rng=None) == [[1], [2], [3]]
    for arguments, options, sentence in (
            (([1, 2],), {}, "2 elements cannot be split into 3 parts"), (([1] * 9,), {"parts": (0.5, 0.4)}, "sum to 1"),
            (([1] * 9,), {"parts": (4, 4)}, "are 8 elements, and there are 9"), ((), {}, "several of equal length"),
            (([1], [1, 2]), {}, "several of equal length"), (([1] * 9,), {"parts": "ab"}, "parts are fractions")):
        with pytest.raises(ValueError, match=sentence):
            data.split(*arguments, rng=0, **options)


# -- a task ----------------------------------------------------------------------------------------------------------

TASKS = {  # arguments → inputs, outputs, loss, metric_name
    "next": ((WORDS,), (10, 10, "cross_entropy", "bits per symbol")),
    "classes at the end": ((WORDS, [word[1] in "ae" for word in WORDS]), (10, 2, "cross_entropy", "fraction right")),
    "names at the end": ((WORDS, [word[-2] for word in WORDS]), (10, 1, "cross_entropy", "fraction right")),
    "numbers at the end": ((RAGGED * 4, [0.5, 1.5, 2.5] * 4), (1, 1, "mse", "mean squared error")),
    "vectors at the end": ((RAGGED * 4, [[0.5, 1.5, 3, 4]] * 12), (1, 4, "mse", "mean squared error")),
    "classes at every step": ((RAGGED * 4, [[0, 2], [1], [1, 1, 0]] * 4), (1, 3, "cross_entropy", "fraction right")),
    "numbers at every step": ((RAGGED * 4, RAGGED * 4), (1, 1, "mse", "mean squared error"))}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_ones_own_trains_like_the_built_in_ones(name, tmp_path):
    arguments, expected = TASKS[name]
    task = data.Sequences(*arguments)
    assert (task.inputs, task.outputs, task.loss, task.metric_name) == expected and np.isfinite(task.baseline)
    model = SequenceModel(**task.sizes, hidden=4, dtype=np.float64, rng=0)
    trainer = Trainer(model, task, mg.optim.Adam(model.parameters(), 0.02), steps=8, batch=4, validate_every=4, bptt=2)
    assert trainer.gradcheck().ok
    history = trainer.run()
    assert np.isfinite(history["loss"]).all() and np.isfinite(history["metric"][[3, 7]]).all()
    task.save(tmp_path / "own.npz")
    again = data.Sequences(file=tmp_path / "own.npz")
    assert again.fingerprint == task.fingerprint and str(again).endswith("own.npz")
    assert again.sizes == task.sizes and again.names == task.names and again.baseline == task.baseline
    with Run.new(Settings.for_task("sequences", options={"file": tmp_path / "own.npz"}, steps=4, hidden=4)) as run:
        assert run.go()["metric_name"] == expected[3]


def test_validation_and_test_are_parts_of_their_own():
    task = data.Sequences([[float(i)] for i in range(20)], [float(i) for i in range(20)], parts=(10, 6, 4), seed=None)
    assert task.validation(0).x.ravel().tolist() == list(range(10, 16)) and task.test(0).x.ravel().tolist() == \
        list(range(16, 20))
    assert set(np.concatenate([task.batch(i, 5).x.ravel() for i in range(30)])) == set(range(10))
    assert task.baseline == np.mean((np.arange(16, 20) - 4.5) ** 2) and task.goal == task.baseline
    assert not data.Sequences(RAGGED, [1.0, 2.0, 3.0], solved_at=1e-9).solved(1e-3)
    model = SequenceModel(1, 1, hidden=3, rng=0)
    trainer = Trainer(model, task, mg.optim.Adam(model.parameters()), steps=1, validate_every=1)
    assert trainer.run()["metric"][0] != trainer.measure()


def test_the_baselines_are_those_of_a_guess_without_input():
    task = data.Sequences([[0, 1]] * 10, list("aaabaaabab"), parts=(6, 2, 2), seed=None)
    assert task.baseline == 0.5  # most often a; the test has a and b
    model = SequenceModel(**task.sizes, hidden=2, rng=0)
    assert task.decode([1, 0]) == "ba" if task.names[0] else True
    assert task.metric(np.asarray(model(task.test(0).x)[0].detach()), task.test(0)) in (0.0, 0.5, 1.0)


@pytest.mark.parametrize("change, sentence", [
    (lambda arrays, meta: arrays.pop("steps"), "KeyError"),
    (lambda arrays, meta: arrays.update(lengths=arrays["lengths"] + 1), "its lengths do not fit its steps"),
    (lambda arrays, meta: arrays.update(steps=arrays["steps"] - 1), "contains -1"),
    (lambda arrays, meta: meta.update(names=[["a"], None]), "its names do not fit its symbols"),
    (lambda arrays, meta: meta.update(names=[[1, 2], None]), "not a list of different strings"),
    (lambda arrays, meta: meta.pop("at_end"), "KeyError"),
    (lambda arrays, meta: arrays.update(targets=np.arange(3)), "its targets do not fit its sequences"),
    (lambda arrays, meta: arrays.update(lengths=np.zeros(0, int), steps=np.zeros(0)), "is not a file of sequences")],
    ids=range(8))
def test_a_file_from_somebody_else_is_checked(change, sentence, tmp_path):
    data.Sequences(WORDS).save(tmp_path / "own.npz")
    arrays, meta = archive.load(tmp_path / "own.npz", "file of sequences")
    change(arrays, meta)
    archive.save(tmp_path / "own.npz", "file of sequences", arrays, meta)
    with pytest.raises(ValueError) as error:
        data.Sequences(file=tmp_path / "own.npz")
    assert sentence in str(error.value) and "own.npz" in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_another_kind_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(ValueError, match="is not a file of sequences of minigrad, but another archive"):
        data.Sequences(file=tmp_path / "other.npz")
    for arguments, sentence in (({}, "give either sequences or a file"),
                                ({"sequences": ["ab", "cd"]}, "three sequences"),
                                ({"sequences": WORDS, "parts": (0.5, 0.5)}, "parts are of three"),
                                ({"sequences": WORDS, "parts": 3}, "parts are of three, .* not 3"),
                                ({"sequences": WORDS, "seed": "a"}, "seed is a whole number from 0 on")):
        with pytest.raises(ValueError, match=sentence):
            data.Sequences(**arguments)
