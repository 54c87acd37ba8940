"""Files as students write them: the right ones are called right, and each planted fault is found and said."""

import functools
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
from faults import PLANTED

from minigrad.handwritten import source
from minigrad.handwritten.judge import judge_file, judge_pair, status_of
from minigrad.handwritten.source import CouldNotRun, read

STUDENTS = Path(__file__).parent / "students"
RIGHT = {"course.py": ["lstm_cell_backward", "rnn_cell_backward", "lstm_backward", "rnn_backward"],
         "cs231n.py": ["affine_backward", "layernorm_backward", "batchnorm_backward", "softmax_loss",
                       "rnn_step_backward", "lstm_step_backward", "temporal_affine_backward", "temporal_softmax_loss",
                       "relu_backward", "word_embedding_backward", "rnn_backward", "lstm_backward"],
         "layers.py": ["Affine", "RNN", "LSTM", "GRU", "TimeLSTM"],
         "own_cells.py": ["gru_cell_backward", "gru_backward"], "sizes.py": ["LSTMCell", "VanillaRNN"],
         "char_lstm.py": ["lossFun"], "char_gru.py": ["lossFun"], "attention.py": ["attention_backward"],
         "peephole.py": ["peephole_lstm_backward"], "bptt_class.py": ["RNNNumpy"], "lstm_targets.py": ["LSTM"],
         "char_functions.py": ["backward"], "batch_net.py": ["Network"], "gru_lists.py": ["GRU"],
         "sentiment.py": ["SentimentRNN"], "birnn.py": ["BiRNN"], "own_sequence.py": ["lstm_backward"],
         "attention_classes.py": ["Softmax", "WeightSum", "AttentionWeight", "Attention"],
         "batch_loop.py": ["backward"], "highway.py": ["highway_backward"], "ln_lstm.py": ["ln_bwd", "lnlstm_backward"],
         "parameter_objects.py": ["GRU"], "french.py": ["retro"], "steps_inside.py": ["RNNNet"],
         "two_directions.py": ["lstm_backward", "bilstm_backward"], "loss_method.py": ["Elman"],
         "layers_of_layers.py": ["Dense", "RNN"], "one_hot.py": ["rnn_backward"],
         "global_gradients.py": ["backward", "forward_backward"], "spanish.py": ["atras"],
         "tables.py": ["Net"], "own_names.py": ["backward_lstm_cell", "rnn_bwd", "SimpleRNN", "MSE", "BCEWithSigmoid"]}


@pytest.fixture(autouse=True)
def little_time(monkeypatch):
    monkeypatch.setattr(source, "LIMIT", 4.0)  # a busy machine takes its time


def edited(tmp_path, file, *edits):
    """A student's file with texts replaced."""
    text = (STUDENTS / file).read_text()
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    (tmp_path / file).write_text(text)
    return str(tmp_path / file)


def verdict_of(path, function):
    return {verdict.name: verdict for verdict in judge_file(path, function)}[function]


@pytest.mark.parametrize("file", RIGHT)
def test_right_code_is_called_right_with_no_other_word(file):
    verdicts = judge_file(str(STUDENTS / file))
    assert [verdict.name for verdict in verdicts] == RIGHT[file]
    said = [(v.status, v.faults, [note for note in v.notes if "float32" not in note]) for v in verdicts]
    assert said == [("right", [], [])] * len(verdicts)
    assert status_of(verdicts) == 0


def test_small_layers_are_right():
    """Embedding, dropout, layer norm, softmax, a loss whose backward takes nothing; ReLU changes its argument."""
    verdicts = {verdict.name: verdict for verdict in judge_file(str(STUDENTS / "small_layers.py"))}
    assert len(verdicts) == 8 and {verdict.status for verdict in verdicts.values()} == {"right"}
    assert {name for name, verdict in verdicts.items() if verdict.notes} == {"ReLU"}
    assert "changes its argument dout in place" in verdicts["ReLU"].notes[0]


@pytest.mark.parametrize(("file", "bound"), [("char_class.py", "5"), ("many_to_one.py", "1"), ("norm_clip.py", "5")])
def test_gradients_that_are_clipped_when_they_are_finished(file, bound):
    """It passes the forward's lists on, takes the step itself for one example at a time, or scales by a norm."""
    (verdict,) = judge_file(str(STUDENTS / file))
    assert (verdict.status, verdict.faults, len(verdict.notes)) == ("right", [], 1)
    assert f"clips its gradients at ±{bound} (line " in verdict.notes[0]


def test_a_step_before_its_gradient(tmp_path):
    """The gradient of the input by the weights after the step is wrong, and no other."""
    (tmp_path / "dense.py").write_text("""
import numpy as np
class Layer:
    def forward(self, x):
        raise NotImplementedError
class Dense(Layer):
    def __init__(self, input_size, output_size):
        self.weights, self.bias = np.random.randn(output_size, input_size), np.random.randn(output_size, 1)
    def forward(self, x):
        self.x = x
        return self.weights @ x + self.bias
    def backward(self, output_gradient, learning_rate):
        dx = self.weights.T @ output_gradient
        self.weights -= learning_rate * output_gradient @ self.x.T
        self.bias -= learning_rate * output_gradient
        return dx
""")
    (verdict,) = judge_file(str(tmp_path / "dense.py"))
    assert (verdict.status, verdict.notes) == ("right", [])
    text = (tmp_path / "dense.py").read_text()
    before = "        dx = self.weights.T @ output_gradient\n"
    after = "        self.bias -= learning_rate * output_gradient\n"
    (tmp_path / "dense.py").write_text(text.replace(before, "").replace(after, after + before))
    (verdict,) = judge_file(str(tmp_path / "dense.py"))
    assert verdict.status == "wrong" and verdict.faults[0].startswith("wrong: dx\nright: dweights, dbias")


SMALL_CLASSES = {"Elman": ("""
class Elman:  # it returns the gradient of a first state that is no argument
    def __init__(self, input_size, hidden_size):
        self.W = np.random.randn(input_size, hidden_size)
        self.U = np.random.randn(hidden_size, hidden_size)
        self.grads = {}
    @property
    def params(self):
        return {"W": self.W, "U": self.U}
    def forward(self, xs, h0=None):
        h0 = np.zeros((xs.shape[1], self.U.shape[0])) if h0 is None else h0
        self.xs, self.states = xs, [h0]
        for x in xs:
            self.states.append(np.tanh(x.dot(self.W) + self.states[-1].dot(self.U)))
        return np.array(self.states[1:])
    def backward(self, dhs):
        dW, dU, dxs, dh = np.zeros_like(self.W), np.zeros_like(self.U), np.zeros_like(self.xs), 0
        for t in range(len(dhs) - 1, -1, -1):
            dz = (dhs[t] + dh) * (1 - self.states[t + 1] ** 2)
            dW += self.xs[t].T.dot(dz)
            dU += self.states[t].T.dot(dz)
            dxs[t], dh = dz.dot(self.W.T), dz.dot(self.U.T)
        self.grads = {"W": dW, "U": dU}
        return dxs, dh
""", "dU += self", "dU += 2 * self", "wrong: dU\nright: dxs, dW\n"), "Decoder": ("""
class Decoder:  # ys are data: there is a gradient of them
    def __init__(self, Wx, Wh):
        self.params, self.grads = [Wx, Wh], [np.zeros_like(Wx), np.zeros_like(Wh)]
    def forward(self, ys, h):
        self.ys, self.h = ys, h
        return ys @ self.params[0] + h @ self.params[1]
    def backward(self, dout):
        self.grads[0][...], self.grads[1][...] = self.ys.T @ dout, self.h.T @ dout
        dys, dh = dout @ self.params[0].T, dout @ self.params[1].T
        return dys, dh
""", "dys, dh = dout", "dys, dh = 2 * dout", "wrong: dys\nright: dh, dWx, dWh\n"), "Attention": ("""
class Attention:  # reshape would take h (N, 1, H), too
    def forward(self, hs, h):
        N, T, H = hs.shape
        self.cache = (hs, h.reshape(N, 1, H).repeat(T, axis=1))
        return np.sum(hs * self.cache[1], axis=2)
    def backward(self, da):
        hs, hr = self.cache
        dt = da[:, :, None].repeat(hs.shape[2], axis=2)
        return dt * hr, np.sum(dt * hs, axis=1)
""", "dt * hr,", "dt * hs,", "wrong: dhs\nright: dh\n")}


@pytest.mark.parametrize("name", SMALL_CLASSES)
def test_small_classes(name, tmp_path):
    code, old, new, said = SMALL_CLASSES[name]
    (tmp_path / "mine.py").write_text(f"import numpy as np\n{code}")
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert (verdict.status, verdict.faults, verdict.notes) == ("right", [], []), verdict
    (tmp_path / "mine.py").write_text(f"import numpy as np\n{code}".replace(old, new))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert verdict.faults and verdict.faults[0].startswith(said), verdict


def test_layers_that_add_up_their_gradients(tmp_path):
    """A note, and no fault. Where the activation is wrong, a right one takes its inputs from the last call on."""
    (tmp_path / "mine.py").write_text("""
import numpy as np
class MatMul:
    def __init__(self, W):
        self.W, self.dW, self.inputs = W, np.zeros_like(W), []
    def forward(self, x):
        self.inputs.append(x)
        return x @ self.W
    def backward(self, dout):
        self.dW += self.inputs.pop().T @ dout
        return 2 * dout @ self.W.T
class Square:
    def __init__(self):
        self.inputs = []
    def forward(self, x):
        self.inputs.append(x)
        return x ** 2 / 3
    def backward(self, dout):
        return dout * self.inputs.pop()
class Layers:
    def __init__(self, Wx, Wh):
        self.params, self.grads = [Wx, Wh], None
    def forward(self, xs, h0):
        self.x, self.h, self.act = MatMul(self.params[0]), MatMul(self.params[1]), Square()
        h, hs = h0, []
        for t in range(xs.shape[1]):
            h = self.act.forward(self.x.forward(xs[:, t]) + self.h.forward(h))
            hs.append(h)
        return np.stack(hs, axis=1)
    def backward(self, dhs):
        dxs, dh = [], 0
        for t in reversed(range(dhs.shape[1])):
            dz = self.act.backward(dhs[:, t] + dh)
            dxs.insert(0, self.x.backward(dz))
            dh = self.h.backward(dz)
        self.grads = [self.x.dW, self.h.dW]
        return np.stack(dxs, axis=1), dh
""")
    product, square, layers = judge_file(str(tmp_path / "mine.py"))
    assert product.faults[0].startswith("wrong: dx\nright: dW\n") and square.status == "wrong"
    assert product.notes == ["dW adds up over calls: set it to zero before each step"]
    assert (layers.status, layers.faults, len(layers.notes)) == ("right", [], 2), layers


def test_min_char_rnn_is_right_and_clips(tmp_path):
    (verdict,) = judge_file(str(STUDENTS / "min_char.py"))  # its training loop and input.txt are not needed
    assert verdict.status == "right" and len(verdict.notes) == 1
    assert re.search(r"clips its gradients at ±5 \(line 43\)", verdict.notes[0])
    one = edited(tmp_path, "min_char.py", ("for dparam in [dWxh, dWhh, dWhy, dbh, dby]:", "for dparam in [dWhh]:"))
    (verdict,) = judge_file(one)
    assert (verdict.status, verdict.faults, len(verdict.notes)) == ("right", [], 1)
    unclipped = edited(tmp_path, "min_char.py", ("np.clip(dparam, -5, 5, out=dparam)", "pass"))
    assert judge_file(unclipped)[0].notes == []


@functools.cache
def planted(i):
    """The verdict for a row of PLANTED."""
    file, old, new, function, *_ = PLANTED[i]
    with tempfile.TemporaryDirectory() as folder:
        return verdict_of(edited(Path(folder), file, (old, new)), function)


@pytest.mark.parametrize("i", range(len(PLANTED)), ids=[f"{row[3]}-{i}" for i, row in enumerate(PLANTED)])
def test_planted_fault_is_said(i):
    *_, status, said = PLANTED[i]
    assert planted(i).status == status, planted(i)
    assert re.search(said, "\n".join([*planted(i).faults, *planted(i).notes])), planted(i)


def test_the_page_says_what_the_audit_says():
    """Every sentence in the last column of the tables of common faults is said of a planted fault."""
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    section = page[page.index("## 4."):page.index("## 5.")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    sentences = [row[-1] for row in rows if row[0] not in ("fault", "habit")]
    said = " ".join(" ".join(str(planted(i)).split()) for i in range(len(PLANTED)))
    assert len(sentences) > 12 and not [s for s in sentences if s not in said]


# -- conventions --------------------------------------------------------------------------------------------


def test_another_order_of_the_gates_is_right(tmp_path):
    """f g i o, i f o g or any other: the reference is the one that gives the numbers of the user's forward."""
    path = edited(tmp_path, "cs231n.py",
                  ("i = sigmoid(a[:, :H])", "g = np.tanh(a[:, :H])"),
                  ("g = np.tanh(a[:, 3 * H:])", "i = sigmoid(a[:, 3 * H:])"),
                  ("[di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g ** 2)]",
                   "[dg * (1 - g ** 2), df * f * (1 - f), do * o * (1 - o), di * i * (1 - i)]"))
    assert [(v.status, v.faults) for v in judge_file(path, "lstm_backward")] == [("right", [])] * 2


def test_a_gru_as_functions(tmp_path):
    """In cs231n's convention, made from the class of `layers.py`."""
    text = (STUDENTS / "layers.py").read_text()
    gru = text[text.index("class GRU"):]
    body = gru[gru.index("        dh_hat = "):gru.index("        self.grads[0]")].replace("        ", "    ")
    unpack = gru[gru.index("        H = Wh"):gru.index("        z = sigmoid")].replace("        ", "    ")
    forward = gru[gru.index("        z = sigmoid"):gru.index("        self.cache = (x, h_prev, z")]
    (tmp_path / "gru.py").write_text(
        text[:text.index("class Affine")] + "def gru_step_forward(x, h_prev, Wx, Wh, b):\n" + unpack
        + forward.replace("        ", "    ") + "    return h_next, (x, h_prev, z, r, h_hat, Wx, Wh, b)\n\n\n"
        "def gru_step_backward(dh_next, cache):\n    x, h_prev, z, r, h_hat, Wx, Wh, b = cache\n" + unpack + body
        + "    return (dx, dh_prev, np.hstack((dWxz, dWxr, dWxh)), np.hstack((dWhz, dWhr, dWhh)),\n"
        "            np.hstack((dbz, dbr, dbh)))\n")
    (verdict,) = judge_file(str(tmp_path / "gru.py"))
    assert (verdict.name, verdict.status, verdict.faults) == ("gru_step_backward", "right", [])


def test_a_wrong_cell_is_not_held_against_the_sequence(tmp_path):
    for file, edit, cell, sequence in [
            ("course.py", ("c_prev * da_next) * ft * (1 - ft)", "c_prev * da_next)"), "lstm_cell_backward",
             "lstm_backward"),
            ("cs231n.py", ("dprev_c = dc * f", "dprev_c = dc"), "lstm_step_backward", "lstm_backward"),
            ("layers.py", ("di *= i * (1 - i)", "di *= i"), "LSTM", "TimeLSTM")]:
        path = edited(tmp_path, file, edit)
        verdicts = {verdict.name: verdict for verdict in judge_file(path, sequence)}
        assert (verdicts[cell].status, verdicts[sequence].status) == ("wrong", "right"), verdicts[sequence]
        assert verdicts[sequence].notes[-1] == f"{sequence} was judged with a right {cell} in place of yours"


def test_gradients_of_other_sizes_are_not_judged(tmp_path):
    """Then the arguments that were found are hardly those that are meant."""
    (tmp_path / "sizes.py").write_text("""
def layer_forward(x, W, V):
    return x @ W + x ** 2 @ V, (x, W, V)

def layer_backward(dout, cache):
    x, W, V = cache
    return x * 0, dout.sum(0), dout.sum(0)
""")
    (verdict,) = judge_file(str(tmp_path / "sizes.py"))
    assert verdict.status == "could not run"
    assert "2 of its 3 gradients have other sizes than what they belong to, as dW (" in verdict.faults[-1]


def test_own_keys_and_caches(tmp_path):
    """A cache that is a dict, caches without x, the key dx_t: as long as the functions fit one another."""
    path = edited(tmp_path, "own_style.py")
    assert [(v.name, v.status, v.notes) for v in judge_file(path)] == [
        ("lstm_cell_backward", "right", []), ("lstm_backward", "right", [])]
    path = edited(tmp_path, "own_style.py", ("dc * c_prev * f * (1 - f)", "dc * c_prev * f"),
                  ("da[:, :, t] + da_next", "da[:, :, t]"))
    cell, sequence = judge_file(path)
    assert "f" in cell.faults[0] and "da_next is not carried" in sequence.faults[0]


def test_minigrad_s_own_document():
    """Its backward is derived, with functions inside functions: right, and nothing else to say."""
    from minigrad import document
    assert [(v.status, v.faults, v.notes) for v in judge_file(document.__file__)] == [("right", [], [])] * 2


def test_the_course_without_forwards(tmp_path):
    """Caches are made by the true forward; `from rnn_utils import *` fails and is not needed."""
    text = (STUDENTS / "course.py").read_text()
    start, end = text.index("def lstm_cell_backward"), text.index("def rnn_cell_forward")
    (tmp_path / "mine.py").write_text("import numpy as np\nfrom rnn_utils import *\n\n" + text[start:end])
    verdicts = judge_file(str(tmp_path / "mine.py"))
    assert [(v.name, v.status) for v in verdicts] == [("lstm_cell_backward", "right"), ("lstm_backward", "right")]


def test_a_loss_that_takes_its_step_inside_keeps_nothing_else(tmp_path):
    """It is called a second time with the weights of the first."""
    end = "    return loss, h_s[len(inputs) - 1]\n"
    step = "    W_h[...] -= 0.1 * dW_h\n    W_y[...] -= 0.1 * dW_y\n"
    path = edited(tmp_path, "global_gradients.py", (end, step + end))
    verdict = verdict_of(path, "forward_backward")
    assert (verdict.status, verdict.faults) == ("right", [])


def test_a_gradient_of_nothing_that_was_found_is_not_passed_over(tmp_path):
    path = edited(tmp_path, "course.py", ('"dWi": dWi,', '"dWi": dWi, "dWq": dWi,'))
    (note,) = verdict_of(path, "lstm_cell_backward").notes
    assert note == ("not judged: dWq, which lstm_cell_backward returns, and no input or weight of that name was found")


def test_a_sigmoid_that_an_import_should_bring(tmp_path):
    """It is minigrad's, also for slices of the arrays that find the arguments."""
    path = edited(tmp_path, "cs231n.py", ("def sigmoid(x):",
                                          "from cs231n.rnn_layers import sigmoid\n\n\ndef other(x):"))
    assert verdict_of(path, "lstm_step_backward").status == "right"


def test_a_function_that_an_import_should_bring(tmp_path):
    path = edited(tmp_path, "cs231n.py", ("def sigmoid(x):", "from cs231n.layers import *\n\n\ndef sigmoid_(x):"),
                  ("i = sigmoid(", "i = sigm("))
    verdict = verdict_of(path, "lstm_step_backward")
    assert verdict.status == "could not run"
    assert re.search(r"line 141: sigm is not defined, because of line 6: ModuleNotFoundError", verdict.faults[0])


def test_a_cell_of_their_own_is_judged_against_its_own_forward(tmp_path):
    """A forward that is not the convention's, and runs on tensors, is differentiated itself."""
    path = edited(tmp_path, "cs231n.py", ("next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)",
                                          "next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + 2 * b)"))
    verdict = verdict_of(path, "rnn_step_backward")
    assert verdict.status == "wrong"
    assert re.search(r"wrong: db\n.*right: dx, dprev_h, dWx, dWh", verdict.faults[0], re.S)
    assert re.search("your forward differs from the usual one: .*judged as the backward of yours", verdict.notes[0])


PAIR = """
import numpy as np
def forward(h, x, p):
    z = p["U"] @ h + p["W"] @ x
    h_next = np.tanh(z)
    return {outputs}
def backward({takes}):
    {unpack}
    dz = d * (1 - h_next ** 2)
    return {result}
"""
DICT = '{"dh": p["U"].T @ dz, "dx": p["W"].T @ dz, "dU": dz @ h.T, "dW": dz @ x.T}'


@pytest.mark.parametrize(("outputs", "takes", "unpack", "result"), [
    ("h_next, (h, x, p, h_next)", "d, cache", "h, x, p, h_next = cache", DICT),
    ("h_next", "d, h, x, p", "h_next = forward(h, x, p)", DICT),
    ("h_next", "d, h, x, p", "h_next = forward(h, x, p)",
     'p["U"].T @ dz, p["W"].T @ dz, {"U": dz @ h.T, "W": dz @ x.T}'),
])
def test_named_functions(outputs, takes, unpack, result, tmp_path):
    (tmp_path / "own.py").write_text(PAIR.format(outputs=outputs, takes=takes, unpack=unpack, result=result))
    file, shapes = str(tmp_path / "own.py"), "h=5,2 x=3,2 p={'U': (5, 5), 'W': (5, 3)}"
    (verdict,) = judge_pair(file, "backward", file, "forward", shapes)
    assert (verdict.status, verdict.faults, verdict.notes) == ("right", [], [])
    (tmp_path / "wrong.py").write_text(Path(file).read_text().replace("dz = d *", "dz = 2 * d *"))
    (verdict,) = judge_pair(str(tmp_path / "wrong.py"), "backward", file, "forward", shapes)
    assert verdict.status == "wrong" and "wrong: dh, dx, dU, dW" in verdict.faults[0]


@pytest.mark.parametrize(("pair", "shapes", "said"), [
    (("backward", "forward"), "h=5,2 x=3;2", "--shapes has 'x=3;2'"),
    (("backward", "forward"), "x=3,2 h=5,2", "forward takes h, x, p: give --shapes for them in this order"),
    (("backward", "forwards"), "h=5,2", "has no function 'forwards': did you mean forward?"),
    (("np", "forward"), "h=5,2", "has no function 'np'"),
])
def test_named_functions_refuse(pair, shapes, said, tmp_path):
    (tmp_path / "own.py").write_text(PAIR.format(outputs="h_next", takes="d", unpack="pass", result="d"))
    file = str(tmp_path / "own.py")
    with pytest.raises(CouldNotRun, match=re.escape(said)):
        judge_pair(file, pair[0], file, pair[1], shapes)


# -- notebooks and files that are not what they should be ---------------------------------------------------


def notebook(tmp_path, *cells):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in cells],
                                "nbformat": 4}))
    return str(path)


def test_python_2_is_read_and_said(tmp_path):
    path = edited(tmp_path, "min_char.py", ("import numpy as np\n", "import numpy as np\nprint 'Python 2'\n"))
    (verdict,) = judge_file(path)
    assert verdict.status == "right" and "is not Python 3, and was read as Python 2: line " in verdict.notes[-1]


def test_a_notebook(tmp_path):
    """Magics are skipped, the last definition wins, and places are cells."""
    text = (STUDENTS / "course.py").read_text()
    empty = "def rnn_cell_backward(da_next, cache):\n    dtanh = None\n    return {}"
    path = notebook(tmp_path, ("markdown", "# Title"), ("code", "%matplotlib inline\nimport numpy as np\n!ls\nnp.dot?"),
                    ("code", empty), ("code", text.splitlines(True)), ("code", "%%bash\nrm -rf build"),
                    ("code", "print 'unused, in Python 2'"), ("code", "while True: pass"),
                    ("code", "raise SystemExit"))
    assert [(v.name, v.status, v.place) for v in judge_file(path) if "rnn" in v.name] == [
        ("rnn_cell_backward", "right", "cell 4, line 115"), ("rnn_backward", "right", "cell 4, line 129")]
    path = notebook(tmp_path, ("code", text), ("code", empty))
    verdict = verdict_of(path, "rnn_cell_backward")
    assert str(verdict) == "rnn_cell_backward (cell 2, line 1): not written\n  not written yet: dtanh (cell 2, line 2)"
    path = notebook(tmp_path, ("code", text.replace("dWf = np.dot(dft, concat.T)", "dWf = np.dot(dit, concat.T)")))
    assert re.search(r"your line +cell 1, line 49: dWf = np.dot\(dit", verdict_of(path, "lstm_cell_backward").faults[0])


@pytest.mark.parametrize(("name", "text", "said"), [
    ("a.py", "def f():\n    print 'x'\n", "line 2: `print 'x'`: print is a function since Python 3"),
    ("a.py", "try:\n    f()\nexcept ValueError, e:\n    pass\n", "line 3: `except ValueError, e:`: Python 3 writes"),
    ("a.py", "x = 1\n/* x: shape */\n", "line 2: `/* x: shape */`: comments begin with #"),
    ("a.py", "for t in range(3):\n    a_prev = \n", "line 2: `a_prev =`: invalid syntax"),
    ("a.py", "def f(:\n", "line 1: `def f(:`"),
    ("a.py", "x = 1\n\0", "not Python 3: "),
    ("a.py", "", "no backward that is found by its name"),
    ("a.py", "def lmu_backward(d): pass", "lmu_backward --forward "),
    ("a.py", "X = 1\nfor i in range(9):\n    dW = X\n", "name the two functions and the shapes"),
    ("a.ipynb", "{}", "is not a Jupyter notebook"),
    ("a.ipynb", "[1", "is not a Jupyter notebook"),
    ("a.ipynb", '{"cells": [{"cell_type": "code", "source": "def f(x):\\n  print x"}]}', "cell 1, line 2: `print x`"),
    ("a.txt", "", "is neither a .py file nor a notebook"),
])
def test_a_file_that_cannot_be_read(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(CouldNotRun, match=re.escape(said)):
        judge_file(str(tmp_path / name))


def test_no_file(tmp_path):
    (tmp_path / "lstm.py").write_text("")
    with pytest.raises(CouldNotRun, match=r"lstmm.py is not a file: did you mean .*lstm.py"):
        judge_file(str(tmp_path / "lstmm.py"))
    with pytest.raises(CouldNotRun, match="is not a file"):
        judge_file(str(tmp_path))
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    with pytest.raises(CouldNotRun, match="cannot be read"):
        judge_file(str(tmp_path / "latin.py"))


@pytest.mark.parametrize(("result", "said"), [
    ("'text', None, None, None, None", "returns a str for dx"), ("object()", "returns a object for dx"),
    ("None", "not written|returns None"), ("()", "returns None"), ("dx", "does not return dprev_h, dWx, dWh, db"),
    ("dx * np.nan, dprev_h, dWx, dWh, db", "dx"), ("[dx[0], dprev_h, dWx, dWh, db]", "dx"),
    ("dx.tolist(), dprev_h, dWx, dWh, db", None),
])
def test_whatever_a_backward_returns(result, said, tmp_path):
    path = edited(tmp_path, "cs231n.py", ("return dx, dprev_h, dWx, dWh, db", f"return {result}"))
    verdict = verdict_of(path, "rnn_step_backward")
    assert verdict.status == "right" if said is None else verdict.status != "right", verdict
    assert said is None or re.search(said, "\n".join(verdict.faults)), verdict


@pytest.mark.parametrize(("file", "function", "old", "new", "status"), [
    ("course.py", "lstm_cell_backward", "return a_next, c_next, yt_pred, cache", "return a_next, cache", "wrong"),
    ("course.py", "lstm_cell_backward", "return a_next, c_next, yt_pred, cache", "return None", "wrong"),
    ("course.py", "lstm_cell_backward", "return a_next, c_next, yt_pred, cache", "return 'a', [], {}, cache", "wrong"),
    ("cs231n.py", "lstm_step_backward", "return next_h, next_c, cache", "return next_h, cache", "could not run"),
    ("cs231n.py", "rnn_step_backward", "return next_h, cache", "return 'text', cache", "could not run"),
    ("cs231n.py", "rnn_step_backward", "cache = (x, prev_h, Wx, Wh, next_h)",
     "cache = {-1: x, 'a': 2, None: [object()]}", "could not run"),
    ("layers.py", "RNN", "return h_next", "return", "could not run"),
    ("min_char.py", "lossFun", "return loss, dWxh", "return None, dWxh", "could not run"),
])
def test_whatever_a_forward_returns(file, function, old, new, status, tmp_path):
    verdict = verdict_of(edited(tmp_path, file, (old, new)), function)
    assert verdict.status == status and verdict.faults, verdict


def test_only_what_is_needed_is_run(tmp_path):
    """Nothing at the top level runs but definitions, imports and what they need; sys.path is left as it was."""
    before = list(sys.path)
    (tmp_path / "beside.py").write_text("scale = 1.0\n")
    path = edited(tmp_path, "cs231n.py", ("import numpy as np\n", "import numpy as np\nfrom beside import scale\n"
                                          "open('made', 'w')\nunused = open('made', 'w')\n"),
                  ("dz = dnext_h *", "dz = scale * dnext_h *"))
    assert verdict_of(path, "rnn_step_backward").status == "right"
    assert sys.path == before and not Path("made").exists()
    assert "unused" not in read(path).run(["rnn_step_backward"])


def test_names_that_contain_those_of_the_convention(tmp_path):
    text = (STUDENTS / "cs231n.py").read_text()
    for name in ("rnn_step", "lstm_step"):
        text = text.replace(f"{name}_forward", f"my_{name}_forward_2")
        text = text.replace(f"{name}_backward", f"my_{name}_backward")
    (tmp_path / "mine.py").write_text(text + "\n\ndef conv_backward(dout, cache):\n    pass\n")
    verdicts = {verdict.name: verdict.status for verdict in judge_file(str(tmp_path / "mine.py"))}
    assert verdicts.pop("conv_backward") == "not judged"
    assert {"my_rnn_step_backward", "my_lstm_step_backward", "lstm_backward"} <= set(verdicts)
    assert set(verdicts.values()) == {"right"}


@pytest.mark.parametrize(("old", "new"), [
    ("return np.dot(dt, Wx.T), np.dot(dt, Wh.T)", "return (np.dot(dt, Wx.T), np.dot(dt, Wh.T), *self.grads)"),
    ("self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]\n        self.cache = None\n\n"
     "    def forward(self, x, h_prev):\n        Wx, Wh, b = self.params\n        h_next",
     "self.grads = {0: np.zeros_like(Wx), 1: np.zeros_like(Wh), 2: np.zeros_like(b)}\n\n"
     "    def forward(self, x, h_prev):\n        Wx, Wh, b = self.params\n        h_next"),
])
def test_where_a_class_keeps_its_gradients(old, new, tmp_path):
    path = edited(tmp_path, "layers.py", (old, new))
    if "{0:" in new:
        text = Path(path).read_text()
        at = text.index("class LSTM")
        head = text[:at]
        for i, name in enumerate(["Wx", "Wh", "b"]):
            head = head.replace(f"{i}: np.zeros_like({name})", f"'d{name}': np.zeros_like({name})")
            start = head.index("class RNN")
            head = head[:start] + head[start:].replace(f"self.grads[{i}][...]", f"self.grads['d{name}'][...]")
        Path(path).write_text(head + text[at:])
    verdict = verdict_of(path, "RNN")
    assert (verdict.status, verdict.faults, verdict.notes) == ("right", [], []), verdict


def test_a_sigmoid_with_another_purpose_is_not_accused(tmp_path):
    """sigmoid(z) → (value, cache), as in another course, in a forward that is right."""
    path = edited(tmp_path, "cs231n.py", ("return top / (1 + z)", "return top / (1 + z), x"),
                  ("i = sigmoid(a[:, :H])", "i, _ = sigmoid(a[:, :H])"),
                  ("f = sigmoid(a[:, H:2 * H])", "f, _ = sigmoid(a[:, H:2 * H])"),
                  ("o = sigmoid(a[:, 2 * H:3 * H])", "o = sigmoid(a[:, 2 * H:3 * H])[0]"))
    verdict = verdict_of(path, "lstm_step_backward")
    assert (verdict.status, verdict.faults, verdict.notes) == ("right", [], [])


def test_the_statuses():
    class One:
        def __init__(self, status):
            self.status = status
    assert [status_of([One(s) for s in each]) for each in (
        ["right", "right"], ["right", "wrong"], ["right", "not written"], ["could not run", "wrong"],
        ["could not run"], ["right", "not judged"])] == [0, 1, 2, 1, 2, 0]


@pytest.mark.parametrize(("top", "inside", "said"), [
    ("import torch", "x = torch.tanh(x)", "affine_backward uses torch: the audit reads backward passes in NumPy"),
    ("import none_such as nl", "x = nl.copy(x)", "nl is not defined, because of line 1: ModuleNotFoundError"),
    ("n = int(input())", "x = x * n", "n is not defined, because of line 1: input() has nobody to answer it"),
    ("def run():\n    while True: pass\nn = run()", "x = x * n", "n is not defined, because of line 2: still running"),
])
def test_a_forward_that_cannot_be_run(top, inside, said, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    (tmp_path / "mine.py").write_text(f"""{top}
import numpy as np
def affine_forward(x, w, b):
    {inside}
    return x @ w + b, (x, w)
def affine_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout, dout.sum(0)
for i in range(100000):
    affine_forward(np.ones((1000, 1000)), np.ones((1000, 1000)), 0)
""")
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert verdict.status == "could not run" and said in verdict.faults[0], verdict
    text = (tmp_path / "mine.py").read_text().replace(inside, "pass")
    (tmp_path / "mine.py").write_text(text)
    assert judge_file(str(tmp_path / "mine.py"))[0].status == "right"  # what is not needed is not run


def test_lengths_that_a_backward_ties(tmp_path):
    """dWb = dz with columns: of one example at a time it is right; where only one of two biases is so, it is not."""
    code = """import numpy as np
def cell_forward(x, h, W, U, bh, V, by):
    h_next = np.tanh(W @ x + U @ h + bh)
    return V @ h_next + by, (x, h, W, U, V, h_next)
def cell_backward(dy, cache):
    x, h, W, U, V, h_next = cache
    dz = V.T @ dy * (1 - h_next ** 2)
    return W.T @ dz, U.T @ dz, dz @ x.T, dz @ h.T, dz, dy @ h_next.T, dy
"""
    (tmp_path / "mine.py").write_text(code)
    for file in (tmp_path / "mine.py", STUDENTS / "step_target.py"):
        (verdict,) = judge_file(str(file))
        assert verdict.status == "right" and "was judged with one example at a time" in verdict.notes[0]
    (tmp_path / "mine.py").write_text(code.replace("h_next.T, dy\n", "h_next.T, dy.sum(axis=1, keepdims=True)\n"))
    assert judge_file(str(tmp_path / "mine.py"))[0].status == "wrong"


COLUMNS = """import numpy as np
def cell_forward(xt, a_prev, p):
    a_next = np.tanh(p['Wax'] @ xt + p['Waa'] @ a_prev + p['ba'])
    return a_next, (a_next, a_prev, xt, p)
def cell_backward(da_next, cache):
    a_next, a_prev, xt, p = cache
    dz = (1 - a_next * a_next) * da_next
    dxt = p['Wax'].T @ dz
    da_prev = p['Waa'].T @ dz
    dba = np.sum(dz, axis=1, keepdims=True)
    return {'dxt': dxt, 'da_prev': da_prev, 'dWax': dz @ xt.T, 'dWaa': dz @ a_prev.T, 'dba': dba}
"""
DENSE = """import numpy as np
class Dense:
    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]
    def forward(self, x):
        self.x, self.out = x, np.tanh(x @ self.params[0] + self.params[1])
        return self.out
    def backward(self, dout):
        dz = dout * (1 - self.out ** 2)
        self.grads[0] = self.x.T @ dz
        self.grads[1] = dz.sum(axis=0)
        return dz @ self.params[0].T
"""


@pytest.mark.parametrize(("code", "old", "new", "said"), [
    (COLUMNS, "axis=1, keepdims", "keepdims", r"dba: the shape is \(1, 1\) in place of \(6, 1\): .* over all axes"),
    (COLUMNS, "axis=1, keepdims", "axis=0, keepdims", r"dba: the shape is \(1, 3\) in place of .* over axis 0"),
    (COLUMNS, "dxt = p['Wax'].T @ dz", "dxt = (p['Wax'].T @ dz).sum(1, keepdims=True)",
     r"dxt: the shape is \(5, 1\) in place of \(5, 3\): it is summed over axis 1"),
    (COLUMNS, "p['Waa'].T @ dz", "(p['Waa'].T @ dz).sum(1, keepdims=True)",
     r"da_prev: the shape is \(6, 1\) in place of \(6, 3\): it is summed over axis 1"),
    (DENSE, "dz.sum(axis=0)", "dz.sum()", r"db: the shape is \(\) in place of \(6,\): it is summed over all axes"),
    (DENSE, "] = dz.sum(axis=0)", "][...] = dz.sum()", r"db: it is summed over all axes, and each entry is that sum"),
    (DENSE, "dz @ self.params[0].T", "(dz @ self.params[0].T).sum(0, keepdims=True)",
     r"dx: the shape is \(1, 5\) in place of \(3, 5\): it is summed over axis 0")])
def test_a_gradient_of_another_shape_is_said(code, old, new, said, tmp_path):
    """The input is not taken to have the shape of its gradient, even if the forward would broadcast it."""
    assert old in code
    (tmp_path / "mine.py").write_text(code.replace(old, new))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert verdict.status == "wrong" and re.search(said, str(verdict)), verdict


def test_a_first_state_of_all_examples(tmp_path):
    """It is learned, of shape (1, H): its gradient is right for that shape, which is said."""
    (tmp_path / "mine.py").write_text("""import numpy as np
def step_forward(x, h0, W, U):
    h = np.tanh(x @ W + h0 @ U)
    return h, (x, h0, W, U, h)
def step_backward(dh, cache):
    x, h0, W, U, h = cache
    dz = dh * (1 - h ** 2)
    return dz @ W.T, (dz @ U.T).sum(axis=0, keepdims=True), x.T @ dz, np.repeat(h0, len(x) // len(h0), 0).T @ dz
""")
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert verdict.status == "right" and "dh0 is right where h0 has the shape (1, " in verdict.notes[0], verdict


def test_a_forward_that_branches_on_values(tmp_path):
    """It cannot be traced: its gradients are compared, and no fault is looked for."""
    code = """import numpy as np
def act_forward(x, W):
    z = x @ W
    y = np.zeros(z.shape)
    for i, j in np.ndindex(*z.shape):
        if z[i, j] > 0:
            y[i, j] = z[i, j]
        else:
            y[i, j] = 0.1 * z[i, j]
    return y, (x, W, z)
def act_backward(dy, cache):
    x, W, z = cache
    dz = dy * np.where(z > 0, 1, 0.1)
    return dz @ W.T, x.T @ dz
"""
    (tmp_path / "mine.py").write_text(code)
    assert judge_file(str(tmp_path / "mine.py"))[0].status == "right"
    (tmp_path / "mine.py").write_text(code.replace("1, 0.1)", "1, 0.2)"))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert verdict.status == "wrong"
    assert verdict.notes == ["your forward branches on values, so no fault was looked for"]
