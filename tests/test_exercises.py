"""Every exercise of the course: its answer passes its check, its starter does not, and wrong answers get a sentence."""

import re
from pathlib import Path

import pytest

from minigrad.cli import main
from minigrad.exercises import CHAPTERS, EXERCISES
from minigrad.exercises.learner import check_file
from minigrad.exercises.page import page
from minigrad.handwritten import source
from minigrad.handwritten.source import CouldNotRun


def checked(text, number, folder):
    file = folder / "my.py"
    file.write_text(text, encoding="utf-8")
    return check_file(str(file), number)


def test_every_chapter_has_three_or_more():
    numbers = [tuple(map(int, number.split("."))) for number in EXERCISES]
    assert numbers == sorted(numbers)
    for chapter in CHAPTERS:
        assert [n for c, n in numbers if c == chapter] == list(range(1, 1 + sum(c == chapter for c, _ in numbers)))
        assert sum(c == chapter for c, _ in numbers) >= 3


@pytest.mark.parametrize("number", EXERCISES)
def test_the_answer_is_right_and_the_starter_is_not(number, tmp_path):
    exercise = EXERCISES[number]
    assert checked(exercise.answer, number, tmp_path) is None
    assert exercise.task and exercise.why and exercise.names
    for text in (exercise.starter, exercise.file):
        with pytest.raises(CouldNotRun, match=r"my\.py: line \d+ is still `\.\.\.`"):
            checked(text, number, tmp_path)
    with pytest.raises(CouldNotRun, match=r"my\.py does not define "):
        checked("", number, tmp_path)


# number → a wrong answer, as (text of the answer, its replacement), and what is said of it
WRONG = {
    "1.1": [("-24.0, 8.0, 8.0", "-24.0, 8.0, -8.0", "d_target is -8, and that is not right"),
            ("-24.0, 8.0, 8.0", "'a', 8.0, 8.0", "d_w is not a number"),
            ("-24.0, 8.0, 8.0", "-24.0, [8.0], 8.0", "d_x has shape (1,), and must be one number"),
            ("-24.0, 8.0, 8.0", "float('nan'), 8.0, 8.0", "d_w contains NaN or infinity")],
    "1.2": [(" + d_z * w", "", "wrong: dx"), ("d_z * x", "d_h * x", "wrong: dw")],
    "1.3": [("x.copy(), x.copy()", "x.copy(), x", "changes x"),
            ("(f(more) - f(less)) / (2 * step)", "(f(more) - f(x)) / step", "central differences are"),
            ("(2 * step)", "step", "the result is not exact")],
    "1.4": [("central=False))", "central=False)) + 3", "another exponent gives"),
            ("one_sided = min", "one_sided = 8 + min", "a whole number from −14")],
    "2.2": [("d_s = d_s * w", "pass", "wrong: "), ("states[t]", "states[t + 1]", "wrong: dw")],
    "2.3": [("copy * s", "w * s", "wrong in"), ("np.full(len(xs), w)", "np.full(2, w)", "shape (2,)")],
    "3.2": [("d_s * (1.0 - s * s)", "d_s", "lacks the derivative of its tanh")],
    "3.4": [("w = 3.0", "w = 1.0", "of 100 runs keep their sign")],
    "4.1": [("[:, None] * W", "* W", "slopes multiply the columns")],
    "4.3": [(".sum(axis=1, keepdims=True)", ".sum(axis=1)", "keepdims=True is missing"),
            (" * (1.0 - h_next ** 2)", "", "lacks the derivative of its tanh")],
    "4.4": [("[scale * g for g in gradients]", "[g / max(1, abs(g).max()) for g in gradients]", "by itself"),
            ("if norm > max_norm else 1.0", "", "norm 0.5"),
            ("return [scale * g for g in gradients], norm", "return norm", "must return two things")],
    "5.2": [("d_h = d_h + d_hs[t]", "d_h = d_hs[t]", "not carried to the step before"),
            ("d_W = d_W + ", "d_W = ", "dW is overwritten at each step")],
    "5.3": [("range(s + 1)", "range(T)", "cannot depend on a later step"), ("row = row @ J[t]", "", "wrong in")],
    "6.2": [(" * (1.0 - np.tanh(c_next) ** 2)", "", "lacks the derivative"), ("d_c_next + d_a", "d_a", "dc_next")],
    "6.3": [("(1.0 - z) * candidate + z * h_prev", "z * candidate + (1.0 - z) * h_prev", "are exchanged")],
    "6.4": [("c_prev + ", "0.9 * c_prev + ", "not passed unchanged"), ("c_prev + ", "c_prev * mg.sigmoid(gate) + ",
                                                                      "not passed unchanged")],
    "7.2": [("np.log(rng.uniform(1.0, longest - 1.0, size=(hidden, 1)))",
             "rng.uniform(0.0, np.log(longest - 1.0), size=(hidden, 1))", "must be uniform"),
            ("-forget", "forget", "the input bias is wrong")],
    "7.3": [("h_prev.detach()", "h_prev", "something still comes back through h_prev")],
    "7.4": [("bias = min(", "bias = -1 + min(", "keeps only"), ("bias = min(", "bias = 1 + min(", "enough too")],
    "8.2": [("return d_w", "return d_w / 2", "the gradient is"), ("range(0, len(xs), k)", "[0]", "the gradient is"),
            ("_ = forward(state, x)", "gradient.__dict__[str(t)] = forward(state, x)", "caches are kept at once")],
    "8.3": [("(max(0, end - k2), end)", "(end - k2, end)", "windows(12, 3, 6) is")],
    "8.4": [("np.concatenate([np.full((1, *targets.shape[1:]), start), targets[:-1]])", "targets",
             "contain the answer")],
    "9.4": [("(1.0 - h_next ** 2)[:, None, None] * P", "P", "slope of tanh is missing"),
            ("direct + np", "np", "wrong in")],
}


@pytest.mark.parametrize(("number", "old", "new", "said"), [(n, *row) for n, rows in WRONG.items() for row in rows])
def test_a_wrong_answer_gets_a_sentence(number, old, new, said, tmp_path):
    assert old in EXERCISES[number].answer
    assert said in checked(EXERCISES[number].answer.replace(old, new), number, tmp_path)


@pytest.mark.parametrize(("code", "said"), [
    ("d_w = 1 / 0", "ZeroDivisionError: division by zero"),
    ("d_w, d_x = 1", "my.py: line 1: TypeError"),
    ("d_w = = 1", "my.py is not Python 3: line 1: `d_w = = 1`"),
    ("d_w = d_x = 1.0", "my.py does not define d_target: `minigrad exercise 1.1` prints a file to start from"),
    ("import os; os._exit(3)", "ended the process that ran it, with status 3"),
    ("raise SystemExit", "line 1: SystemExit"),
])
def test_a_file_that_cannot_be_run_gets_a_sentence(code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(code)
    assert main(["exercise", "1.1", "my.py"]) == 2
    assert said in capsys.readouterr().err


def test_endless_code_is_stopped(tmp_path, monkeypatch, capsys):
    """In the file, in a call of the check, and where the code stops the clock that would stop it."""
    monkeypatch.setattr(source, "LIMIT", 0.3)
    with pytest.raises(CouldNotRun, match=r"my\.py: line 1: still running after 0\.3 s"):
        checked("while True: pass", "1.1", tmp_path)
    with pytest.raises(CouldNotRun, match=r"my\.py: line 2: still running after 0\.3 s"):
        checked("def windows(T, k1, k2):\n    while True: pass", "8.3", tmp_path)
    file = tmp_path / "my.py"
    file.write_text("import signal; signal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass")
    assert main(["exercise", "1.1", str(file), "--seconds", "3"]) == 2
    assert "was still being run or judged after 3 s" in capsys.readouterr().err


def test_a_function_that_is_none(tmp_path):
    with pytest.raises(CouldNotRun, match="backward is not a function at the end of the file"):
        checked("backward = 3", "1.2", tmp_path)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {e.number}  {e.title}\n" in listed for e in EXERCISES.values())
    assert main(["exercise", "1.1"]) == 0
    starter = capsys.readouterr().out
    assert starter == EXERCISES["1.1"].file and starter.startswith("# Exercise 1.1. Three gradients by hand\n#\n# The")
    assert main(["exercise", "1.1", "--answer"]) == 0
    Path("my.py").write_text(capsys.readouterr().out + "print('well')")
    assert main(["exercise", "1.1", "my.py"]) == 0
    assert capsys.readouterr().out.startswith("| well\nexercise 1.1: right\nThe error is y − target")
    Path("my.py").write_text("d_w = d_x = d_target = 1.0")
    assert main(["exercise", "1.1", "my.py"]) == 1
    assert capsys.readouterr().out == "exercise 1.1: not right yet\nd_w is 1, and that is not right\n"


@pytest.mark.parametrize(("arguments", "said"), [
    (["1.9"], "there is no exercise 1.9: chapter 1 has 1.1, 1.2, 1.3, 1.4"),
    (["77"], "there is no exercise 77: `minigrad exercise` lists them"),
    (["1.1", "none.py"], "none.py is not a file"),
    (["my.py"], "the number of the exercise comes first: minigrad exercise 1.1 my.py"),
])
def test_bad_arguments(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_course_counts_them():
    course = (Path(__file__).parents[1] / "docs" / "bptt.md").read_text(encoding="utf-8")
    assert f"[{len(EXERCISES)} exercises](exercises.md)" in course
    for chapter, title in CHAPTERS.items():
        last = sum(number.startswith(f"{chapter}.") for number in EXERCISES)
        anchor = re.sub(r"[^\w -]", "", f"{chapter}. {title}").lower().replace(" ", "-")
        assert f"[Exercises {chapter}.1 to {chapter}.{last}](exercises.md#{anchor})" in course


def test_the_page_is_up_to_date():
    file = Path(__file__).parents[1] / "docs" / "exercises.md"
    assert file.read_text(encoding="utf-8") == page(), "write it: python -m minigrad.exercises.page > docs/exercises.md"
