"""The benchmarks' contenders compute the same, and the roofline counts the work of an LSTM as by hand."""

import compiled_lstm
import pytest
import timing

from minigrad.timeloop import cache
from minigrad.timeloop.compile import compiler


@pytest.mark.parametrize("title", [title for title in compiled_lstm.TABLES if not title.startswith("unrolled")])
def test_contenders_agree(title, capsys, monkeypatch):
    cache.programs.clear()
    contenders, _ = compiled_lstm.TABLES[title]
    size = (2, 3, 4, 1) if title == "step" else (2, 3, 4, 5)
    contenders = {name: contender for name, contender in contenders.items() if name != "torch.compile"}  # slow
    calls = timing.compared(contenders, size)
    assert "NumPy" in calls
    left_out = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(calls) + len(left_out) == len(contenders)


def test_contenders_that_disagree_are_refused():
    one, other = (lambda size, y=y: (lambda: None, lambda: {"y": y}) for y in (1.0, 1.1))
    with pytest.raises(AssertionError, match="other, y"):
        timing.compared({"one": one, "other": other}, ())


@pytest.mark.skipif(not compiler.enabled(), reason="there is no C compiler")
@pytest.mark.parametrize("size", [(1, 3, 4, 5), (16, 7, 2, 8), (32, 2, 9, 6)])
def test_the_work_of_an_lstm_is_counted(size):
    cache.programs.clear()
    batch, T, D, H = size
    step, _ = compiled_lstm.by("c", compiled_lstm.recurrent.minigrad_layer)(size)
    step()
    program, = (program.in_c for program in cache.programs)
    flops, entries, passes, moved = compiled_lstm.work_of(program, T)
    assert flops == 2 * T * batch * 4 * H * (2 * (D + H) + H)  # W [a; x], dW, and the part of Wᵀ dz that is for a
    assert entries > 13 * T * batch * H and min(passes) >= 2
    kept = 6 * H * T + H + (4 * H + D + H) * T  # c, four gates and tanh c; the rows of dz and [a; x]
    assert moved >= 4 * batch * (2 * kept + (D + 2 * H) * T)
    us, total = compiled_lstm.time_of_parts(step, 1)
    assert {"forward", "backward"} <= set(us) and 0 < sum(us.values()) < total * 1.5
    assert compiled_lstm.CProgram.call.__name__ == "call"  # it is watched no more
