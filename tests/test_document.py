"""The document's functions against its equations in plain NumPy, against complex steps through them, and PyTorch."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import document
from minigrad.document import lstm_backward, lstm_cell_backward, lstm_cell_forward, lstm_forward
from minigrad.engine.op import OPS

GATES = ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo")
HEAD = ("Wy", "by")
GOLDEN = Path(__file__).parent / "golden"

# n_x, n_a, n_y, m, T: all different, to notice a wrong transpose; then each of them at 1
SIZES = [(3, 5, 4, 2, 4), (5, 3, 2, 1, 3), (2, 4, 3, 3, 1), (1, 1, 1, 1, 2)]


# -- the post's own text --------------------------------------------------------------------------------------

POST = (GOLDEN / "post.txt").read_text(encoding="utf-8")  # its two functions, word for word
MENDED = [  # (in the post, in Python)
    ("    /*\n        x_t:", '        """\n        x_t:'),  # comments of C; this one as deep as the lines below it
    ("    /*\n        x:", '    """\n        x:'),
    ("    */\n", '    """\n'),
    ("//Concatenate", "# Concatenate"),
    ("n_x, m = xt.shape", "n_x, m = x_t.shape"),  # the argument is x_t
    ("it, cct, ot, xt, parameters)", "it, cct, ot, x_t, parameters)"),
    ("np.numpy(", "np.dot("),
    ("in rang(", "in range("),
    ("        a_prev = \n", ""),
]


def mended_post(sigmoid, softmax):
    """The two functions of the post, which defines neither sigmoid nor softmax."""
    text, names = POST, {"sigmoid": sigmoid, "softmax": softmax}
    for wrong, right in MENDED:
        assert wrong in text, wrong
        text = text.replace(wrong, right)
    exec(compile(text, "post.txt", "exec"), names)
    return names["lstm_cell_forward"], names["lstm_forward"]


def textbook_softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=0)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("curves", ["minigrad", "textbook"])
def test_the_posts_own_text_computes_the_same(sizes, curves):
    """To 1e-15: a, y, c and all that the caches contain, in the post's order."""
    x, a0, p = make(*sizes)
    post_cell, post = mended_post(*{"minigrad": (mg.sigmoid, lambda z: mg.softmax(z, axis=0)),
                                    "textbook": (sigmoid, textbook_softmax)}[curves])
    *theirs, (their_caches, their_x) = post(x, a0, p)
    *ours, (our_caches, our_x) = lstm_forward(x, a0, p)
    assert their_x is our_x is x and len(their_caches) == len(our_caches) == x.shape[2]
    for their_cache, our_cache in zip(their_caches, our_caches):
        assert len(their_cache) == len(our_cache) == 10 and their_cache[9] is our_cache[9] is p
        theirs += their_cache[:9]
        ours += our_cache[:9]
    for one, other in zip(theirs, ours):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)
    c0 = np.random.default_rng(2).normal(size=a0.shape)
    for one, other in zip(post_cell(x[:, :, 0], a0, c0, p)[:3], lstm_cell_forward(x[:, :, 0], a0, c0, p)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)


def test_the_post_is_not_python_and_defines_two_functions():
    with pytest.raises(SyntaxError):
        compile(POST, "post.txt", "exec")
    for name in ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo", "Wy", "by"):
        assert f'{name} = parameters["{name}"]' in POST
    assert "def sigmoid" not in POST and "def softmax" not in POST and POST.count("def ") == 2


# -- the equations, once more and without minigrad -----------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def plain_cell(xt, a_prev, c_prev, p):
    z = np.concatenate([a_prev, xt])
    ft, it, ot = (sigmoid(p["W" + k] @ z + p["b" + k]) for k in "fio")
    cct = np.tanh(p["Wc"] @ z + p["bc"])
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    e = np.exp(p["Wy"] @ a_next + p["by"])
    return a_next, c_next, e / e.sum(axis=0), (ft, it, cct, ot)


def plain_forward(x, a0, p):
    a, c, out = a0, np.zeros_like(a0), []
    for t in range(x.shape[2]):
        a, c, y, _ = plain_cell(x[:, :, t], a, c, p)
        out.append((a, y, c))
    return tuple(np.stack(values, axis=2) for values in zip(*out))


def complex_step(f, values: dict, h=1e-30) -> dict:
    """d f / d value for every entry of every value, exact to rounding, for a real f of plain NumPy."""
    out = {}
    for name, value in values.items():
        out[name] = np.zeros(value.shape)
        for i in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[i] += 1j * h
            out[name][i] = f({**values, name: moved}).imag / h
    return out


def make(n_x, n_a, n_y, m, T, seed=0, dtype=np.float64):
    """x, a0 and parameters."""
    rng = np.random.default_rng(seed)
    shapes = {**{k: (n_a, n_a + n_x) if k[0] == "W" else (n_a, 1) for k in GATES}, "Wy": (n_y, n_a), "by": (n_y, 1)}
    parameters = {k: rng.normal(size=shape).astype(dtype) for k, shape in shapes.items()}
    return rng.normal(size=(n_x, m, T)).astype(dtype), rng.normal(size=(n_a, m)).astype(dtype), parameters


def upstream(n_a, n_y, m, T, seed=1):
    """da, dy, dc."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_a, m, T)), rng.normal(size=(n_y, m, T)), rng.normal(size=(n_a, m, T))


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.max(np.abs(b))))


def as_tensors(tree, requires_grad=True):
    if isinstance(tree, dict):
        return {k: as_tensors(v, requires_grad) for k, v in tree.items()}
    return mg.tensor(tree, requires_grad=requires_grad)


# -- forward -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_the_cell_is_its_equations(sizes):
    x, a0, p = make(*sizes)
    c0 = np.random.default_rng(2).normal(size=a0.shape)
    a_next, c_next, yt, cache = lstm_cell_forward(x_t=x[:, :, 0], a_prev=a0, c_prev=c0, parameters=p)
    a, c, y, (ft, it, cct, ot) = plain_cell(x[:, :, 0], a0, c0, p)
    for ours, plain in ((a_next, a), (c_next, c), (yt, y)):
        assert type(ours) is np.ndarray and ours.shape == plain.shape
        close(ours, plain)
    close(yt.sum(axis=0), np.ones(x.shape[1]))

    assert len(cache) == 10
    for ours, plain in zip(cache, (a, c, a0, c0, ft, it, cct, ot, x[:, :, 0])):
        close(ours, plain)
    assert cache[9] is p


@pytest.mark.parametrize("sizes", SIZES)
def test_the_sequence_is_the_cell_repeated(sizes):
    _, n_a, n_y, m, T = sizes
    x, a0, p = make(*sizes)
    a, y, c, (caches, x_kept) = lstm_forward(x, a0, p)
    assert a.shape == c.shape == (n_a, m, T) and y.shape == (n_y, m, T)
    for ours, plain in zip((a, y, c), plain_forward(x, a0, p)):
        assert type(ours) is np.ndarray
        close(ours, plain)

    assert x_kept is x and len(caches) == T
    for t, (a_next, c_next, a_prev, c_prev, *_, xt, kept) in enumerate(caches):
        assert np.array_equal(a_next, a[:, :, t]) and np.array_equal(c_next, c[:, :, t])
        assert np.array_equal(a_prev, a[:, :, t - 1] if t else a0)
        assert np.array_equal(c_prev, c[:, :, t - 1] if t else np.zeros((n_a, m)))
        assert np.array_equal(xt, x[:, :, t]) and kept is p


def test_inputs_are_left_alone():
    x, a0, p = make(3, 5, 4, 2, 4)
    before = [v.copy() for v in (x, a0, *p.values())]
    a, _, _, caches = lstm_forward(x, a0, p)
    da = np.ones(a.shape)
    lstm_backward(da, caches)
    assert all(np.array_equal(v, w) for v, w in zip((x, a0, *p.values()), before)) and np.all(da == 1)


def test_tensors_in_tensors_out_with_the_same_values_and_gradients():
    sizes = 3, 5, 4, 2, 4
    x, a0, p = make(*sizes)
    da, dy, dc = upstream(5, 4, 2, 4)
    tx, ta0, tp = as_tensors(x), as_tensors(a0), as_tensors(p)
    a, y, c, caches = lstm_forward(tx, ta0, tp)
    plain = lstm_forward(x, a0, p)
    for ours, array in zip((a, y, c), plain):
        assert isinstance(ours, mg.Tensor) and np.array_equal(ours.detach().numpy(), array)
    assert isinstance(caches[0][0][0], mg.Tensor)

    (mg.sum(a * da) + mg.sum(y * dy) + mg.sum(c * dc)).backward()
    found = lstm_backward(da, plain[3], dy, dc)
    for name, tensor in {"x": tx, "a0": ta0, **tp}.items():
        close(tensor.grad, found["d" + name])


def test_caches_of_tensors_work_in_backward():
    x, a0, p = make(3, 5, 4, 2, 4)
    da, dy, dc = upstream(5, 4, 2, 4)
    expected = lstm_backward(da, lstm_forward(x, a0, p)[3], dy, dc)
    for requires_grad in (True, False):
        *_, caches = lstm_forward(as_tensors(x), a0, as_tensors(p, requires_grad))
        found = lstm_backward(as_tensors(da, requires_grad), caches, as_tensors(dy, requires_grad), dc)
        assert list(found) == list(expected)
        for key in expected:
            assert type(found[key]) is np.ndarray and np.array_equal(found[key], expected[key])
    cell = lstm_cell_backward(mg.tensor(da[:, :, 0]), dc[:, :, 0], caches[0][1])
    assert all(type(value) is np.ndarray for value in cell.values())


def test_backward_works_under_no_grad():
    x, a0, p = make(3, 5, 4, 2, 4)
    da, *_ = upstream(5, 4, 2, 4)
    *_, caches = lstm_forward(x, a0, p)
    expected = lstm_backward(da, caches)
    for context in (mg.no_grad(), mg.detect_anomaly()):
        document.derived.cache_clear()  # so that the text is derived in there
        with context:
            inside = lstm_backward(da, caches)
        assert all(np.array_equal(value, inside[key]) for key, value in expected.items())


def test_float32_stays_float32():
    x, a0, p = make(3, 5, 4, 2, 6, dtype=np.float32)
    da, dy, dc = upstream(5, 4, 2, 6)  # float64 gradients do not widen float32 values
    a, y, c, caches = lstm_forward(x, a0, p)
    assert a.dtype == y.dtype == c.dtype == np.float32
    assert all(value.dtype == np.float32 for value in caches[0][2][:9])
    *_, wide_caches = lstm_forward(x.astype(float), a0.astype(float), {k: v.astype(float) for k, v in p.items()})
    wide = lstm_backward(da, wide_caches, dy, dc)
    for key, value in lstm_backward(da, caches, dy, dc).items():
        assert value.dtype == np.float32
        close(value, wide[key], 1e-5)
    cell = lstm_cell_backward(da[:, :, 0], dc[:, :, 0], caches[0][0], dy[:, :, 0])
    assert all(value.dtype == np.float32 for value in cell.values())


def test_one_hot_integers_and_a_dict_with_more_entries():
    x, a0, p = make(3, 5, 4, 2, 4)
    x = (np.arange(3)[:, None, None] == np.random.default_rng(2).integers(3, size=(2, 4))).astype(int)
    da, dy, dc = upstream(5, 4, 2, 4)
    *_, caches = lstm_forward(x, a0, {**p, "n_a": 5, "note": "mine"})
    found = lstm_backward(da, caches, dy, dc)
    expected = lstm_backward(da, lstm_forward(x.astype(float), a0, p)[3], dy, dc)
    assert list(found) == list(expected) and all(np.array_equal(found[key], expected[key]) for key in expected)
    assert "dnote" not in lstm_cell_backward(da[:, :, 0], dc[:, :, 0], caches[0][1])


@pytest.mark.parametrize("whole", [bool, np.uint8, np.int64])
def test_integers_become_floats_of_the_cells_own_dtype(whole):
    _, a0, p = make(3, 5, 4, 2, 1, dtype=np.float32)
    x_t = np.eye(3)[:, :2].astype(whole)
    da, dy, dc = (d[:, :, 0] for d in upstream(5, 4, 2, 1))
    a_next, _, _, cache = lstm_cell_forward(x_t, a0, np.zeros_like(a0), p)
    found = lstm_cell_backward(da, dc, cache, dy)
    assert found["dxt"].dtype == a_next.dtype and found["dWf"].dtype == found["da_prev"].dtype == np.float32
    *_, wide = lstm_cell_forward(x_t.astype(float), a0.astype(float), np.zeros(a0.shape),
                                 {k: v.astype(float) for k, v in p.items()})
    for key, value in lstm_cell_backward(da, dc, wide, dy).items():
        close(found[key], value, 1e-5)


@pytest.mark.parametrize("extreme", [800.0, -800.0])
def test_saturated_gates_are_finite(extreme):
    x, a0, p = make(3, 5, 4, 2, 4)
    p = {k: np.full_like(v, extreme) if k[0] == "b" else v for k, v in p.items()}
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a, y, c, caches = lstm_forward(x, a0, p)
        found = lstm_backward(np.ones(a.shape), caches, np.ones(y.shape), np.ones(c.shape))
    assert all(np.isfinite(value).all() for value in (a, y, c, *found.values()))


# -- backward, against complex steps through the plain equations -------------------------------------------------


@pytest.mark.parametrize("with_y", [False, True], ids=["", "dyt"])
@pytest.mark.parametrize("sizes", SIZES)
def test_cell_backward_against_complex_steps(sizes, with_y):
    _, n_a, n_y, m, _ = sizes
    x, a0, p = make(*sizes)
    c0 = np.random.default_rng(2).normal(size=a0.shape)
    da, dy, dc = (d[:, :, 0] for d in upstream(n_a, n_y, m, 1))

    def loss(v):
        a, c, y, _ = plain_cell(v["xt"], v["a_prev"], v["c_prev"], v)
        return np.sum(da * a) + np.sum(dc * c) + with_y * np.sum(dy * y)

    *_, cache = lstm_cell_forward(x[:, :, 0], a0, c0, p)
    found = lstm_cell_backward(da, dc, cache, dy if with_y else None)
    true = complex_step(loss, {"xt": x[:, :, 0], "a_prev": a0, "c_prev": c0, **p})
    keys = ["dxt", "da_prev", "dc_prev", *("d" + k for k in GATES), *("d" + k for k in HEAD if with_y)]
    assert sorted(found) == sorted(keys)
    for key in keys:
        assert type(found[key]) is np.ndarray and found[key].shape == true[key[1:]].shape
        close(found[key], true[key[1:]])


@pytest.mark.parametrize("given", ["da", "da dy", "da dc", "da dy dc"])
@pytest.mark.parametrize("sizes", SIZES)
def test_sequence_backward_against_complex_steps(sizes, given):
    _, n_a, n_y, m, T = sizes
    x, a0, p = make(*sizes)
    da, dy, dc = upstream(n_a, n_y, m, T)
    dy, dc = (d if name in given else None for name, d in (("dy", dy), ("dc", dc)))

    def loss(v):
        values = plain_forward(v["x"], v["a0"], v)
        return sum(np.sum(d * value) for d, value in zip((da, dy, dc), values) if d is not None)

    found = lstm_backward(da, lstm_forward(x, a0, p)[3], dy, dc)
    true = complex_step(loss, {"x": x, "a0": a0, **p})
    keys = ["dx", "da0", *("d" + k for k in GATES), *("d" + k for k in HEAD if "dy" in given)]
    assert sorted(found) == sorted(keys)
    for key in keys:
        assert type(found[key]) is np.ndarray and found[key].shape == true[key[1:]].shape
        close(found[key], true[key[1:]])


def test_da_may_cover_only_the_first_steps():
    n_x, n_a, n_y, m, T_x = 3, 5, 4, 2, 6
    x, a0, p = make(n_x, n_a, n_y, m, T_x)
    *_, caches = lstm_forward(x, a0, p)
    for T in (1, 4, T_x):
        da, dy, dc = upstream(n_a, n_y, m, T)
        short = lstm_backward(da, lstm_forward(x[:, :, :T], a0, p)[3], dy, dc)
        found = lstm_backward(da, caches, dy, dc)
        assert found["dx"].shape == (n_x, m, T)
        for key in short:
            close(found[key], short[key])

    # the same as a loss without the later steps: they have no effect on earlier ones, and their inputs no gradient
    padded = np.zeros((n_a, m, T_x))
    padded[:, :, :4] = upstream(n_a, n_y, m, 4)[0]
    found, full = lstm_backward(padded[:, :, :4], caches), lstm_backward(padded, caches)
    assert np.all(full["dx"][:, :, 4:] == 0)
    close(found["dx"], full["dx"][:, :, :4])
    close(found["dWf"], full["dWf"])


def test_two_hundred_steps_along_random_directions():
    n_x, n_a, n_y, m, T = 3, 6, 4, 2, 200
    x, a0, p = make(n_x, n_a, n_y, m, T)
    p["bf"] += 2.0  # so that the far past counts
    da, dy, dc = upstream(n_a, n_y, m, T)
    found = lstm_backward(da, lstm_forward(x, a0, p)[3], dy, dc)
    values = {"x": x, "a0": a0, **p}
    rng = np.random.default_rng(3)
    for name, value in values.items():
        v = rng.normal(size=value.shape)
        moved = {**values, name: value + 1e-30j * v}
        outputs = plain_forward(moved["x"], moved["a0"], moved)
        slope = sum(np.sum(d * out) for d, out in zip((da, dy, dc), outputs)).imag / 1e-30
        assert np.sum(found["d" + name] * v) == pytest.approx(slope, rel=1e-11), name


# -- the derived backward, run on the caches ------------------------------------------------------------------


MIXED = [("f8", "f8", "f8"), ("f4", "f4", "f4"), ("f8", "f4", "f4"), ("f4", "f8", "f4"), ("f4", "f4", "f8")]


@pytest.mark.parametrize("dtypes", MIXED, ids="-".join)
@pytest.mark.parametrize("sizes", SIZES)
def test_the_engine_gives_the_same(sizes, dtypes):
    """The engine, op by op through the whole forward, gives the same numbers in the same dtypes."""
    _, n_a, n_y, m, T = sizes
    x, a0, p = make(*sizes)
    x, a0, p = x.astype(dtypes[0]), a0.astype(dtypes[1]), {k: v.astype(dtypes[2]) for k, v in p.items()}
    da, dy, dc = upstream(n_a, n_y, m, T)
    (a, y, c), pull = mg.vjp(lambda *inputs: lstm_forward(*inputs)[:3], x, a0, p)
    dx, da0, d_parameters = pull((da.astype(a.dtype), dy.astype(y.dtype), dc.astype(c.dtype)))
    found = lstm_backward(da, lstm_forward(x, a0, p)[3], dy, dc)
    for key, true in {"dx": dx, "da0": da0, **{f"d{name}": d for name, d in d_parameters.items()}}.items():
        assert found[key].dtype == true.dtype
        close(found[key], true, 1e-12 if set(dtypes) == {"f8"} else 1e-5)


@pytest.mark.parametrize("with_y", [False, True], ids=["", "dy"])
def test_the_backward_does_not_run_the_forward(with_y, monkeypatch):
    x, a0, p = make(3, 5, 4, 2, 6)
    da, dy, dc = upstream(5, 4, 2, 6)
    dy = dy if with_y else None
    *_, caches = lstm_forward(x, a0, p)
    expected = lstm_backward(da, caches, dy, dc)  # from here on the text for these shapes is there

    def forbidden(*_, **__):
        raise AssertionError("a forward was run")
    for name in ("lstm_cell_forward", "sigmoid", "tanh", "derive"):
        monkeypatch.setattr(document, name, forbidden)
    for op in ("matmul", "sigmoid", "tanh", "concatenate"):
        monkeypatch.setattr(OPS[op], "forward", forbidden)
    for key, value in lstm_backward(da, caches, dy, dc).items():
        assert np.array_equal(value, expected[key])


def test_the_backward_reads_the_gates_from_the_cache():
    """The backward reads the gates from the cache, also if no forward could produce them from these inputs."""
    n_a, n_y, m = 5, 4, 2
    x, a0, p = make(3, n_a, n_y, m, 1)
    da, dy, dc = (d[:, :, 0] for d in upstream(n_a, n_y, m, 1))
    a_next, c_next, c_prev, ft, it, cct, ot = np.random.default_rng(4).uniform(0.1, 0.9, size=(7, n_a, m))
    x_t = x[:, :, 0]
    found = lstm_cell_backward(da, dc, (a_next, c_next, a0, c_prev, ft, it, cct, ot, x_t, p), dy)

    e = np.exp(p["Wy"] @ a_next + p["by"])
    y = e / e.sum(axis=0)
    dzy = y * (dy - np.sum(dy * y, axis=0))
    da = da + p["Wy"].T @ dzy
    dc = dc + da * ot * (1 - np.tanh(c_next) ** 2)
    dz = {"f": dc * c_prev * ft * (1 - ft), "i": dc * cct * it * (1 - it), "c": dc * it * (1 - cct**2),
          "o": da * np.tanh(c_next) * ot * (1 - ot)}
    d_concat = sum(p["W" + k].T @ dz[k] for k in dz)
    true = {"dc_prev": dc * ft, "da_prev": d_concat[:n_a], "dxt": d_concat[n_a:], "dWy": dzy @ a_next.T,
            "dby": dzy.sum(axis=1, keepdims=True)}
    true |= {"dW" + k: dz[k] @ np.concatenate([a0, x_t]).T for k in dz}
    true |= {"db" + k: dz[k].sum(axis=1, keepdims=True) for k in dz}
    assert sorted(found) == sorted(true)
    for key in true:
        close(found[key], true[key])


def test_results_share_no_memory():
    """Results must not share memory with one another or with the caches; with m = 1 no sum would copy."""
    x, a0, p = make(3, 5, 4, 1, 2)
    da, dy, dc = upstream(5, 4, 1, 2)
    *_, caches = lstm_forward(x, a0, p)
    for found in (lstm_backward(da, caches, dy, dc),
                  lstm_cell_backward(da[:, :, 0], dc[:, :, 0], caches[0][0], dy[:, :, 0])):
        others = [da, dy, dc, *caches[0][0][:9], *p.values()]
        for value in found.values():
            assert not any(np.shares_memory(value, other) for other in others)
            others.append(value)


# -- the two carries ----------------------------------------------------------------------------------------


def by_steps(da, dc, caches, carry_a=1.0, carry_c=1.0):
    """The document's loop over `lstm_cell_backward`, with a factor on each carry: popular copies have 0."""
    total = {}
    da_carried = dc_carried = 0.0
    for t in reversed(range(da.shape[2])):
        step = lstm_cell_backward(da[:, :, t] + da_carried, dc[:, :, t] + dc_carried, caches[0][t])
        da_carried, dc_carried = carry_a * step["da_prev"], carry_c * step["dc_prev"]
        for key in ("dWf", "dbf", "dWi", "dbi", "dWc", "dbc", "dWo", "dbo"):
            total[key] = total.get(key, 0.0) + step[key]
        total.setdefault("dx", []).append(step["dxt"])
    return {**total, "dx": np.stack(total["dx"][::-1], axis=2), "da0": step["da_prev"]}


def test_the_cells_backward_and_both_carries_make_the_sequences_backward():
    x, a0, p = make(3, 5, 4, 2, 6)
    da, _, dc = upstream(5, 4, 2, 6)
    *_, caches = lstm_forward(x, a0, p)
    found = lstm_backward(da, caches, dc=dc)
    true = by_steps(da, dc, caches)
    for key in found:
        close(found[key], true[key])

    for dropped in ({"carry_a": 0.0}, {"carry_c": 0.0}, {"carry_a": 0.0, "carry_c": 0.0}):
        wrong = by_steps(da, dc, caches, **dropped)
        for key in found:  # otherwise the tolerance above could hide a dropped carry
            assert np.max(np.abs(wrong[key] - true[key])) > 0.01 * np.max(np.abs(true[key])), (dropped, key)


@pytest.mark.parametrize("only", ["a", "c"])
def test_each_carry_reaches_the_first_step_alone(only):
    """The weights block the other path back, so without this carry dx[:, :, 0] would be zero."""
    n_a, T = 4, 5
    x, a0, p = make(3, n_a, 2, 2, T)
    if only == "c":  # no gate reads a_prev
        p = {k: np.where(np.arange(v.shape[1]) < n_a, 0.0, v) if k in ("Wf", "Wi", "Wc", "Wo") else v
             for k, v in p.items()}
    else:  # the forget gate is shut
        p["Wf"], p["bf"] = np.zeros_like(p["Wf"]), np.full((n_a, 1), -40.0)
    da = np.zeros((n_a, 2, T))
    da[:, :, -1] = 1.0
    *_, c, caches = lstm_forward(x, a0, p)
    found = lstm_backward(da, caches)
    close(found["dx"], complex_step(lambda v: np.sum(plain_forward(v["x"], a0, p)[0][:, :, -1]), {"x": x})["x"])
    assert np.all(found["dx"][:, :, 0] != 0)
    if only == "c":  # in closed form: dL/dc_0 is dL/dc_T times the forget gates along the path
        _, _, _, _, _, it, cct, _, _, _ = caches[0][0]
        ot, forget = caches[0][-1][7], [cache[4] for cache in caches[0][1:]]
        dc_first = ot * (1 - np.tanh(c[:, :, -1]) ** 2) * np.prod(forget, axis=0)
        through_c, through_i = dc_first * it * (1 - cct**2), dc_first * cct * it * (1 - it)
        close(found["dx"][:, :, 0], p["Wc"][:, n_a:].T @ through_c + p["Wi"][:, n_a:].T @ through_i)


# -- PyTorch ------------------------------------------------------------------------------------------------


def agrees_with_torch(g: dict):
    """Compare with PyTorch's record. PyTorch has gates i, f, g, o and two biases; here they are f, i, c, o and one."""
    n_a = g["a"].shape[-1]
    rows = dict(zip("ifco", range(4)))  # PyTorch's g is the document's c

    def block(name, k):
        return g[name][rows[k] * n_a:(rows[k] + 1) * n_a]

    def ours(prefix=""):
        W = {"W" + k: np.hstack([block(prefix + "weight_hh_l0", k), block(prefix + "weight_ih_l0", k)]) for k in rows}
        return W, {"Wy": g[prefix + "head.weight"], "by": g[prefix + "head.bias"][:, None]}

    def features_first(value):
        return value.transpose(2, 1, 0)

    W, head = ours()
    b = {"b" + k: (block("bias_ih_l0", k) + block("bias_hh_l0", k))[:, None] for k in rows}
    a, y, c, caches = lstm_forward(features_first(g["x"]), g["h0"][0].T, {**W, **b, **head})
    close(a, features_first(g["a"]))
    close(y, features_first(g["y"]))
    close(c[:, :, -1], g["c_last"][0].T)

    dc = np.zeros(c.shape)
    dc[:, :, -1] = g["dc_last"][0].T
    found = lstm_backward(features_first(g["da"]), caches, features_first(g["dy"]), dc)
    close(found["dx"], features_first(g["grad x"]))
    close(found["da0"], g["grad h0"][0].T)
    dW, d_head = ours("grad ")
    for name, value in {**dW, **d_head}.items():
        close(found["d" + name], value)
    for k in rows:
        for bias in ("grad bias_ih_l0", "grad bias_hh_l0"):  # of a sum, each gets the whole gradient
            close(found["db" + k], block(bias, k)[:, None])


def test_pytorchs_recorded_sequence():
    with np.load(GOLDEN / "torch_lstm.npz") as golden:
        agrees_with_torch(dict(golden))


@pytest.mark.parametrize("sizes", [{"n_x": 3, "n_a": 5, "n_y": 4, "m": 2, "T_x": 7},
                                   {"n_x": 20, "n_a": 16, "n_y": 9, "m": 1, "T_x": 60}])
def test_pytorch_itself(sizes):
    pytest.importorskip("torch")
    agrees_with_torch(runpy.run_path(GOLDEN / "make_torch_lstm.py")["torch_lstm"](**sizes, seed=5))


# -- the course's exercise --------------------------------------------------------------------------------------


def test_the_exercises_published_numbers():
    """The document's random numbers, and the expected output in notebooks of the course: the right one of the two sets
    in circulation (docs/document.md explains the other)."""
    rng = np.random.RandomState(1)
    x, a0 = rng.randn(3, 10, 7), rng.randn(5, 10)
    p = {}
    for gate in "fioc":
        p["W" + gate], p["b" + gate] = rng.randn(5, 8), rng.randn(5, 1)
    after_gates = rng.get_state()
    p["Wy"], p["by"] = rng.randn(2, 5), rng.randn(2, 1)
    a, y, c, caches = lstm_forward(x, a0, p)
    assert a[4, 3, 6] == pytest.approx(0.172117767533, abs=1e-12)
    assert y[1, 4, 3] == pytest.approx(0.95087346185, abs=1e-11)
    assert c[1, 2, 1] == pytest.approx(-0.855544916718, abs=1e-12)

    rng.set_state(after_gates)  # the exercise draws da in place of Wy
    found = lstm_backward(rng.randn(5, 10, 4), caches)
    assert found["dx"][1, 2] == pytest.approx([0.00218254, 0.28205375, -0.48292508, -0.43281115], abs=1e-8)
    assert found["da0"][2, 3] == pytest.approx(0.312770310257, abs=1e-12)
    assert found["dWf"][3, 1] == pytest.approx(-0.0809802310938, abs=1e-12)
    assert found["dWi"][1, 2] == pytest.approx(0.40512433093, abs=1e-11)
    assert found["dWc"][3, 1] == pytest.approx(-0.0793746735512, abs=1e-12)
    assert found["dWo"][1, 2] == pytest.approx(0.038948775763, abs=1e-12)
    assert [found[key][4, 0] for key in ("dbf", "dbi", "dbc", "dbo")] == pytest.approx(
        [-0.15745657, -0.50848333, -0.42510818, -0.17958196], abs=1e-8)


# -- bad input ------------------------------------------------------------------------------------------------


def test_bad_input_is_refused():
    x, a0, p = make(3, 5, 4, 2, 4)
    c0 = np.zeros_like(a0)
    cases = [
        (KeyError, "parameters lack Wi, by: they are Wf", lambda: lstm_cell_forward(
            x[:, :, 0], a0, c0, {k: v for k, v in p.items() if k not in ("Wi", "by")})),
        (ValueError, r"Wf has shape \(8, 5\) and must have \(5, 8\) for n_x = 3, n_a = 5, m = 2",
         lambda: lstm_forward(x, a0, {**p, "Wf": p["Wf"].T})),
        (ValueError, r"bo has shape \(5,\) and must have \(5, 1\)",
         lambda: lstm_forward(x, a0, {**p, "bo": p["bo"][:, 0]})),
        (ValueError, r"Wy has shape \(4, 6\) and must have \(4, 5\)",
         lambda: lstm_forward(x, a0, {**p, "Wy": np.zeros((4, 6))})),
        (ValueError, r"a_prev has shape \(5, 3\) and must have \(5, 2\)",
         lambda: lstm_forward(x, np.zeros((5, 3)), p)),
        (ValueError, r"c_prev has shape \(4, 2\) and must have \(5, 2\)",
         lambda: lstm_cell_forward(x[:, :, 0], a0, np.zeros((4, 2)), p)),
        (ValueError, r"x_t \(3,\) and a_prev \(5, 2\) must be .* features first",
         lambda: lstm_cell_forward(x[:, 0, 0], a0, c0, p)),
        (ValueError, "x of shape .* with T_x ≥ 1.*time last", lambda: lstm_forward(x[:, :, :0], a0, p)),
        (ValueError, "x of shape .* with T_x ≥ 1.*time last", lambda: lstm_forward(x[:, :, 0], a0, p)),
    ]
    a, *_, caches = lstm_forward(x, a0, p)
    da = np.ones(a.shape)
    cell = lambda *given: lstm_cell_backward(*given[:2], caches[0][0], *given[2:])  # noqa: E731
    cases += [
        (ValueError, "1 ≤ T ≤ 4, the steps of the caches", lambda: lstm_backward(da[:, :, 0], caches)),
        (ValueError, "1 ≤ T ≤ 4, the steps of the caches", lambda: lstm_backward(da[:, :, :0], caches)),
        (ValueError, "1 ≤ T ≤ 4", lambda: lstm_backward(np.ones((5, 2, 9)), caches)),
        (ValueError, r"da has shape \(5, 1, 4\) and must have that of its value, \(5, 2, 4\)",
         lambda: lstm_backward(da[:, :1], caches)),
        (ValueError, r"dy has shape \(5, 2, 4\)", lambda: lstm_backward(da, caches, da)),
        (ValueError, r"dc has shape \(5, 2, 3\)", lambda: lstm_backward(da, caches, dc=da[:, :, :3])),
        (ValueError, r"da_next has shape \(5, 2, 4\)", lambda: cell(da, c0)),
        (ValueError, r"dc_next has shape \(5, 1\)", lambda: cell(c0, c0[:, :1])),
        (ValueError, r"dyt has shape \(5, 2\)", lambda: cell(c0, c0, c0)),
        (TypeError, "da_next is complex and its value float64", lambda: cell(1j * c0, c0)),
        (ValueError, "caches as lstm_forward returns them", lambda: lstm_backward(da, caches[0])),
    ]
    *given, kept = caches[0][0]
    cases += [
        (ValueError, r"a cell's cache contains a_next, .* this one has 2 values: take it from lstm_cell_forward",
         lambda: lstm_cell_backward(c0, c0, caches)),
        (ValueError, r"ft has shape \(3, 2\) and must have \(5, 2\)",
         lambda: lstm_cell_backward(c0, c0, (*given[:4], given[8], *given[5:], kept))),
        (KeyError, "parameters lack bi", lambda: lstm_cell_backward(
            c0, c0, (*given, {k: v for k, v in kept.items() if k != "bi"}))),
    ]
    for kind, sentence, call in cases:
        with pytest.raises(kind, match=sentence):
            call()
