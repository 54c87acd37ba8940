"""The trainer: it equals a handwritten loop, resumes to the bit, and names what went wrong."""

import itertools
import json
import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.tasks import Adding, Batch, Reber, Text
from minigrad.training.sampling import sample
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.settings import Settings
from minigrad.training.signals import SignalGuard
from minigrad.training.trainer import Diverged, Trainer
from minigrad.training.windows import split_windows

CIRCLE = Text(text="the quick brown fox. " * 60)


def model_for(task, seed=0, **options):
    return SequenceModel(task.inputs, task.outputs, symbols=task.symbols, rng=seed, **{"hidden": 8, **options})


def trainer_for(task, model=None, seed=0, optimizer=optim.Adam, lr=0.01, **options):
    model = model or model_for(task, seed)
    return Trainer(model, task, optimizer(model.parameters(), lr), **{"steps": 6, "batch": 4, "rng": seed, **options})


def everything(trainer):
    """The state of a trainer in a comparable form, without the time."""
    arrays, meta = trainer.state_dict()
    meta = json.loads(json.dumps(meta))  # as in a file
    return {name: (x.dtype, x.tobytes()) for name, x in arrays.items()}, {**meta, "seconds": 0, "ended": ""}


# -- modes and progress ----------------------------------------------------------------------------------------------


def modes(model):
    return {name: part.training for name, part in model.named_parts() if isinstance(part, nn.Module)}


def broken(*_):
    raise KeyError


SWITCHES = {
    "sample": lambda trainer: sample(trainer.model, 3, 0),
    "measure": lambda trainer: trainer.measure(),
    "check": lambda trainer: trainer.gradcheck(),
    "run": lambda trainer: trainer.run(),
}


@pytest.mark.parametrize("fails", [False, True], ids=["", "exception"])
@pytest.mark.parametrize("part", ["", "recurrent", "recurrent.layers.l1", "linear"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_the_mode_of_each_module_is_restored(switch, part, fails, monkeypatch):
    trainer = trainer_for(CIRCLE, model_for(CIRCLE, layers=2, dropout=0.5), steps=2, validate_every=1, bptt=16)
    dict(trainer.model.named_parts())[part].eval()
    trainer.model.again = trainer.model.recurrent  # a part with two names
    before = modes(trainer.model)
    if fails:
        monkeypatch.setattr(SequenceModel, "checked_input", broken)
        with pytest.raises(KeyError):
            SWITCHES[switch](trainer)
    else:
        SWITCHES[switch](trainer)
    assert modes(trainer.model) == before and not all(before.values())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_part_in_eval_mode_stays_in_it_and_a_model_in_eval_mode_does_not(frozen):
    seen = []
    trainer = trainer_for(CIRCLE, model_for(CIRCLE, layers=2, dropout=0.5), steps=1, bptt=16,
                          callbacks=[lambda trainer, row: seen.append(modes(trainer.model)) or False])
    (trainer.model.recurrent if frozen else trainer.model).eval()
    trainer.run()
    assert seen[0][""] and seen[0]["recurrent"] is not frozen


def test_lines_show_a_metric_where_it_was_measured_and_the_bar_the_last_one(capsys):
    lines = []
    trainer = trainer_for(Adding(length=5), steps=20, validate_every=4)
    trainer.run(report=lines.append)
    shown = {int(line.split()[1]): "error" in line for line in lines}
    assert trainer.task.metric_name in lines[1] and "error" in trainer.task.metric_name
    assert shown == {step: step % 4 == 0 for step in range(2, 21, 2)}
    trainer = trainer_for(Adding(length=5), steps=20, validate_every=8)
    trainer.run(bar=True)
    said = capsys.readouterr().err.replace("\r", "\n").splitlines()
    last = [line for line in said if line][-1]
    assert "20/20" in last and trainer.task.metric_name in last


# -- the loop ------------------------------------------------------------------------------------------------------


def test_it_equals_a_handwritten_loop():
    task = Reber()
    trainer = trainer_for(task, clip=0.1, schedule=optim.cosine(0.02, 6))
    history = trainer.run()

    model, rng = model_for(task), np.random.default_rng(0)
    optimizer = optim.Adam(model.parameters())
    for step in range(6):
        batch = task.batch(rng, 4)
        outputs, _ = model(batch.x, None, batch.lengths)
        loss = nn.cross_entropy(outputs, batch.targets, mask=batch.mask)
        optimizer.zero_grad()
        loss.backward()
        norm = optim.clip_grad_norm(optimizer.parameters, 0.1)
        optimizer.lr = 0.01 + 0.01 * math.cos(math.pi * step / 6)
        optimizer.step()
        assert [history[name][step] for name in ("step", "loss", "norm", "lr")] == [
            step + 1, loss.item(), norm, pytest.approx(optimizer.lr)]
    assert trainer.ended == "done" and (trainer.sequences, history["loss"].shape) == (24, (6,))


def test_it_learns_more_than_a_bigram_can():
    model = model_for(CIRCLE, hidden=32, embedding=8)
    trainer = trainer_for(CIRCLE, model, lr=0.02, steps=150, batch=8, bptt=16, clip=1.0)
    losses = trainer.run()["loss"]
    assert losses[0] == pytest.approx(np.log(CIRCLE.inputs), abs=0.3)  # at first it guesses
    assert trainer.measure() < 0.5 * CIRCLE.baseline
    assert model.training  # measuring restored the mode
    codes = sample(model, 60, rng=0, prime=[CIRCLE.characters.index(".")], temperature=0.3)
    assert "quick brown" in CIRCLE.decode(codes)


def test_the_metric_follows_its_definition():
    """One stream: −log₂ p, one character after another."""
    short = Text(text="the quick brown fox. " * 20)
    trainer = trainer_for(short)
    batch = short.test(0)
    assert batch.x.shape[1] == 1
    state, bits = None, []
    with mg.no_grad():
        for code, target in zip(batch.x[:, 0], batch.targets[:, 0]):
            outputs, state = trainer.model(np.array([[code]]), state)
            bits.append(-np.log2(mg.softmax(outputs).numpy()[0, 0, target]))
    assert trainer.measure() == pytest.approx(np.mean(bits), rel=1e-5)


def test_callbacks_see_every_step_and_can_end_training():
    seen = []
    trainer = trainer_for(Adding(length=5), callbacks=[lambda trainer, row: seen.append((trainer.step, row["loss"])),
                                                       lambda trainer, row: row["step"] == 3])
    losses = trainer.run()["loss"]
    assert trainer.ended == "stopped" and seen == list(zip((1, 2, 3), losses))


def test_validation_is_recorded_and_changes_nothing():
    task = Adding(length=5)
    model = model_for(task, layers=2, dropout=0.5)
    history = trainer_for(task, model, validate_every=2).run()
    plain = trainer_for(task, model_for(task, layers=2, dropout=0.5)).run()
    np.testing.assert_array_equal(history["loss"], plain["loss"])
    assert np.isfinite(history["metric"]).tolist() == [False, True] * 3 and "metric" not in plain


@pytest.mark.parametrize("goal, steps, ended", [(math.inf, 2, "solved"), (0.0, 6, "done")])
def test_it_stops_when_solved(goal, steps, ended):
    class Easy(Adding):
        pass
    Easy.goal = goal
    trainer = trainer_for(Easy(length=5), validate_every=2, until_solved=True)
    assert len(trainer.run()["loss"]) == steps and trainer.ended == ended
    assert len(trainer.run()["loss"]) == steps and trainer.ended == ended  # there is nothing left to do


def test_the_validation_set_alone_decides_when_to_stop():
    drawn = []

    class Watched(Adding):
        def test(self, rng):
            drawn.append("test")
            return super().test(rng)

        def validation(self, rng):
            drawn.append("validation")
            return super().batch(rng, 7)

        def solved(self, value):
            return len(drawn) >= 3
    trainer = trainer_for(Watched(length=5), validate_every=1, until_solved=True)
    trainer.run()
    assert trainer.ended == "solved" and drawn == 3 * ["validation"]
    trainer.measure()
    assert drawn == 3 * ["validation"] + ["test"]


def test_a_user_defined_task_and_loss():
    """A trainer needs only a batch and a loss from its task."""
    def batch(rng, size):
        x = rng.normal(size=(3, size, 2))
        return Batch(x, x.sum(axis=2, keepdims=True))
    task = SimpleNamespace(batch=batch, loss=lambda y, target, mask: mg.mean(abs(y - target)))
    model = SequenceModel(2, 1, hidden=8, rng=0)
    losses = Trainer(model, task, optim.Adam(model.parameters(), 0.02), steps=100).run()["loss"]
    assert losses[-1] < 0.3 * losses[0]


# -- truncated backpropagation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("k1, k2", [(1, 1), (1, 3), (2, 5), (3, 3), (4, 11), (10, 10), (10, 30), (None, None)])
def test_every_target_counts_once_and_windows_advance(k1, k2):
    batch = Reber().batch(0, 5)
    T = len(batch.x)
    start, counted = 0, np.zeros(batch.mask.shape, int)
    for i, window in enumerate(split_windows(batch, k1, k2)):
        steps = slice(start, start + len(window.x))
        np.testing.assert_array_equal(window.x, batch.x[steps])
        np.testing.assert_array_equal(window.targets, batch.targets[steps])
        counted[steps] += window.mask
        inside = window.lengths == np.clip(batch.lengths - start, 1, len(window.x))
        assert inside.all() and len(window.x) <= (k2 or T) and window.first == (i == 0)
        start += window.advance
    assert start == T
    np.testing.assert_array_equal(counted, batch.mask)


def test_without_a_mask_steps_after_the_end_do_not_count():
    batch = Batch(np.zeros((4, 2, 1)), np.zeros((4, 2, 1)), lengths=np.array([1, 4]))
    (window,) = split_windows(batch)
    assert window.mask.T.tolist() == [[True, False, False, False], [True] * 4]


@pytest.mark.parametrize("bptt", [3, (1, 3), (2, 7), 100, None])
def test_the_state_is_carried_and_the_losses_add_up_to_the_whole(bptt):
    """With lr = 0 all windows see the same model, so their losses add up to that of the whole sequence."""
    trainer = trainer_for(CIRCLE, lr=0.0, bptt=bptt, batch=30)
    windows = list(split_windows(CIRCLE.batch(0, 30), *trainer.bptt))
    trainer.steps = len(windows)
    losses = trainer.run()["loss"]
    counts = [window.targets.size if window.mask is None else window.mask.sum() for window in windows]
    whole = CIRCLE.batch(0, 30)
    outputs, _ = trainer.model(whole.x)
    expected = nn.cross_entropy(outputs, whole.targets).item()
    assert np.average(losses, weights=counts) == pytest.approx(expected, rel=1e-6)
    assert (trainer.sequences, sum(counts)) == (30, whole.targets.size)


def test_gradients_reach_back_k2_steps_and_no_further():
    """They equal the gradients of a loss in which the state before the window is a constant."""
    task, seen = Adding(length=12), []
    trainer = trainer_for(task, lr=0.0, bptt=(2, 5), steps=1, optimizer=optim.SGD)
    trainer.run()  # adding has a target only at the last step, in the last of the windows 0–5, 2–7, …, 8–12
    seen = [p.grad.copy() for p in trainer.model.parameters()]

    batch, model = task.batch(np.random.default_rng(0), 4), model_for(task)
    with mg.no_grad():
        _, state = model(batch.x[:8])
    outputs, _ = model(batch.x[8:], state)
    nn.mse_loss(outputs, batch.targets[8:], mask=batch.mask[8:]).backward()
    for p, g in zip(model.parameters(), seen):
        np.testing.assert_allclose(p.grad, g, rtol=1e-5, atol=1e-8)


def test_rows_restart_where_their_sequence_ends():
    """Rows contain several sequences, so some windows begin one."""
    rng = np.random.default_rng(0)
    windows = [Batch(rng.normal(size=(3, 2, 2)).astype("f"), rng.normal(size=(3, 2, 1)).astype("f"), first=first)
               for first in (True, np.array([False, True]), np.array([False, False]), np.array([True, False]))]
    model = SequenceModel(2, 1, hidden=4, rng=0)
    ahead = iter(windows)
    task = SimpleNamespace(batch=lambda rng, size: next(ahead), loss="mse")
    trainer = Trainer(model, task, optim.SGD(model.parameters(), 0.0), steps=4)
    losses = trainer.run()["loss"]

    x, targets = (np.concatenate([getattr(w, name) for w in windows]) for name in ("x", "targets"))
    starts = [(0, 9), (9, 12)], [(0, 3), (3, 12)]  # per row
    errors = np.zeros((12, 2))
    for row, pieces in enumerate(starts):
        for a, b in pieces:
            y, _ = model(x[a:b, row:row + 1])
            errors[a:b, row] = (y.data[:, 0, 0] - targets[a:b, row, 0]) ** 2
    np.testing.assert_allclose(losses, errors.reshape(4, 6).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("bptt", [0, -1, (3, 2), (0, 2)])
def test_impossible_windows_are_refused(bptt):
    with pytest.raises(ValueError, match=r"bptt is .* 1 ≤ k1 ≤ k2"):
        trainer_for(CIRCLE, bptt=bptt)


# -- stop and go on ------------------------------------------------------------------------------------------------

RUNS = {
    "text": {"task": "text", "bptt": 7, "embedding": 3},
    "text, k1 < k2, dropout": {"task": "text", "bptt": (3, 8), "layers": 2, "dropout": 0.3, "cell": "gru"},
    "adding in pieces, SGD": {"task": "adding", "options": {"length": 10}, "bptt": 4, "optimizer": "sgd",
                              "optimizer_options": {"momentum": 0.9}},
    "reber, RMSprop, float64": {"task": "reber", "optimizer": "rmsprop", "dtype": "float64", "validate_every": 3},
    "parity, AdamW": {"task": "parity", "optimizer": "adamw", "options": {"length": 6}, "cell": "rnn"},
    "copy, Adagrad, warm-up": {"task": "copy", "optimizer": "adagrad", "warm_up": 4, "schedule": "cosine"},
}


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "circle.txt"
    path.write_text("the quick brown fox. " * 30)
    return path


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_resuming_equals_an_uninterrupted_training_to_the_bit(run, text_file):
    settings = {"hidden": 6, "batch": 4, "steps": 12, **run}
    if run["task"] == "text":
        settings["options"] = {"file": text_file}
    settings = Settings.for_task(**settings)
    whole = settings.trainer()
    losses = whole.run()["loss"]

    paused = settings.trainer()
    paused.callbacks.append(lambda trainer, row: row["step"] in (3, 8))
    paused.run()
    saved = paused.state_dict()
    np.testing.assert_array_equal(paused.run()["loss"], losses[:8])  # the same object continues
    assert paused.ended == "stopped"

    resumed = settings.trainer()
    resumed.load_state_dict(*saved)  # another object continues from there
    np.testing.assert_array_equal(resumed.run()["loss"], losses[3:])
    assert everything(resumed) == everything(whole) and resumed.ended == "done"


def test_the_state_of_another_model_is_refused():
    saved = trainer_for(CIRCLE).state_dict()
    with pytest.raises(ValueError, match="these arrays are not those of this SequenceModel"):
        trainer_for(CIRCLE, model_for(CIRCLE, layers=2)).load_state_dict(*saved)
    with pytest.raises(ValueError, match="these arrays are not those of this SGD"):
        trainer_for(CIRCLE, optimizer=optim.SGD).load_state_dict(*saved)


def test_any_bit_generator_works():
    """Also one whose state contains an array."""
    rngs = [np.random.Generator(np.random.MT19937(seed)) for seed in (1, 2)]
    one, other = (trainer_for(CIRCLE, bptt=5, rng=rng) for rng in rngs)
    one.run()
    arrays, meta = one.state_dict()
    other.load_state_dict(arrays, json.loads(json.dumps(meta)))
    assert everything(other) == everything(one)
    assert next(other.windows()).x.tolist() == next(one.windows()).x.tolist()


def test_same_seed_same_bits():
    runs = [trainer_for(CIRCLE, bptt=5, seed=seed).run()["loss"].tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_and_handlers_are_restored(number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = trainer_for(CIRCLE, steps=100, bptt=5)
    model, calls = trainer.model, itertools.count(1)

    class Interrupted(SequenceModel):
        def __call__(self, *arguments):
            if next(calls) == 3:
                signal.raise_signal(number)
            return super().__call__(*arguments)
    model.__class__ = Interrupted
    assert len(trainer.run()["loss"]) == 3 and trainer.ended == "interrupted"
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert len(trainer.run()["loss"]) == 100  # it continues
    with pytest.raises(KeyboardInterrupt), SignalGuard():  # the second signal interrupts
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_nonfinite_loss_names_step_and_op_and_changes_nothing():
    trainer = trainer_for(Adding(length=5))

    def poison(trainer, row):
        if row["step"] == 3:
            trainer.model.linear.weight.data = np.full_like(trainer.model.linear.weight.data, np.inf)
            trainer.before = everything_but_weights(trainer)
    def everything_but_weights(trainer):
        return trainer.optimizer.state_dict()["steps"].tolist(), trainer.step, len(trainer.rows)
    trainer.callbacks.append(poison)
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step 4: \w+ of .*weight.* gave (nan|-?inf) at index"):
        trainer.run()
    assert everything_but_weights(trainer) == trainer.before
    with pytest.raises(Diverged, match=r"linear.weight contains NaN or Inf after step 3"):
        trainer.state_dict()  # such a state must not be saved


def test_a_nonfinite_gradient_is_noticed_before_it_is_used():
    """√|y| is finite at 0, and its slope is not."""
    task = SimpleNamespace(batch=lambda rng, size: Batch(np.zeros((2, size, 1)), np.zeros((2, size, 1))),
                           loss=lambda y, target, mask: mg.mean(mg.sqrt(y * y)))
    model = SequenceModel(1, 1, cell="rnn", hidden=2, rng=0)
    before = model.state_dict()
    with pytest.raises(Diverged, match=r"the norm of the gradients is (nan|inf) at step 1: the rule of sqrt gave"):
        Trainer(model, task, optim.SGD(model.parameters(), 0.1), steps=3).run()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_far_too_large_step_size_ends_in_a_sentence():
    with pytest.raises(Diverged, match=r"at step \d+: "):
        trainer_for(Adding(length=5), lr=1e30, optimizer=optim.SGD, steps=50).run()


# -- check, sample --------------------------------------------------------------------------------------------------


def test_gradients_of_the_trained_model_pass_the_complex_step():
    trainer = trainer_for(CIRCLE, model_for(CIRCLE, layers=2, dropout=0.5, embedding=3))
    before = everything(trainer)
    report = trainer.gradcheck()
    assert report.ok and report.method == "complex step" and report.worst.error < 1e-11
    assert {row.name for row in report.rows} == dict(trainer.model.named_parameters()).keys()
    assert everything(trainer) == before


def test_the_gradient_check_notices_a_wrong_rule(monkeypatch):
    op = mg.OPS["cross_entropy"]
    vjp, = op.vjps
    monkeypatch.setattr(op, "vjps", [vjp._replace(recorded=lambda *a: 1.001 * vjp.recorded(*a),
                                                  plain=lambda *a: 1.001 * vjp.plain(*a))])
    report = trainer_for(CIRCLE).gradcheck()
    assert not report.ok and report.blamed[0][0] == "cross_entropy.dlogits"


def test_sampling_follows_the_models_probabilities():
    model = model_for(CIRCLE)
    model.linear.weight.data *= 0
    p = np.array([0.5, 0.3, 0.2])
    model.linear.bias.data = np.where(np.arange(CIRCLE.inputs) < 3, np.log(np.resize(p, CIRCLE.inputs)), -1e9)
    for temperature in (1.0, 0.5):
        codes = sample(model, 1000, rng=1, temperature=temperature)
        expected = p ** (1 / temperature)
        counts = np.bincount(codes, minlength=CIRCLE.inputs) / 1000
        np.testing.assert_allclose(counts[:3], expected / expected.sum(), atol=0.05)  # 3 standard deviations
        assert counts[3:].sum() == 0
    assert set(sample(model, 5, temperature=0.0)) == {0}
    np.testing.assert_array_equal(sample(model, 9, rng=3, prime=[2, 1]), sample(model, 9, rng=3, prime=[2, 1]))
    for wrong in ({"prime": []}, {"temperature": -1.0}, {"temperature": math.nan}):
        with pytest.raises(ValueError, match="takes a prime of one symbol or more and a temperature ≥ 0"):
            sample(model, 3, **wrong)
