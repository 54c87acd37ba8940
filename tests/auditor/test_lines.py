"""The line of a fault is the line that makes the first wrong value, and not the one where a gradient is returned."""

import numpy as np
import pytest

import minigrad as mg

X, H, C, W, U, B = (np.zeros(shape) for shape in ((3, 2), (4, 2), (4, 2), (16, 3), (16, 4), (16, 1)))


def lstm(x, h, c, W, U, b):
    z = W @ x + U @ h + b
    i, f, o, g = mg.sigmoid(z[:4]), mg.sigmoid(z[4:8]), mg.sigmoid(z[8:12]), mg.tanh(z[12:])
    c_next = f * c + i * g
    h_next = o * mg.tanh(c_next)
    return h_next, c_next


BACKWARD = """
def backward(d, x, h, c, W, U, b):
    dh_next, dc_next = d
    z = W @ x + U @ h + b
    i, f, o, g = sigmoid(z[:4]), sigmoid(z[4:8]), sigmoid(z[8:12]), np.tanh(z[12:])
    c_next = f * c + i * g
    t = np.tanh(c_next)
    grads = {}
    dt = dh_next * o
    dc_next = dc_next + dt * (1 - t * t)
    dz = np.zeros_like(z)
    dz[:4] = dc_next * g * i * (1 - i)
    dz[4:8] = dc_next * c * f * (1 - f)
    dz[8:12] = dh_next * t * o * (1 - o)
    dz[12:] = dc_next * i * (1 - g ** 2)
    grads["dW"] = dz @ x.T
    grads["dU"] = dz @ h.T
    grads["db"] = dz.sum(axis=1, keepdims=True)
    grads["dx"] = W.T @ dz
    grads["dh"] = U.T @ dz
    grads["dc"] = dc_next * f
    return grads
"""
# (a line, and what stands there)
FAULTS = [("dz[4:8] = dc_next * c * f * (1 - f)", "dz[4:8] = dc_next * c_next * f * (1 - f)"),
          ("dz[:4] = dc_next * g * i * (1 - i)", "dz[:4] = dc_next * g"),
          ("dz[12:] = dc_next * i * (1 - g ** 2)", "dz[12:] = dc_next * i * (g ** 2 - 1)"),
          ("dc_next = dc_next + dt * (1 - t * t)", "dc_next = dc_next + dt"),
          ("grads[\"dh\"] = U.T @ dz", "grads[\"dh\"] = U.T @ dz / 2"),
          ("grads[\"dc\"] = dc_next * f", "grads[\"dc\"] = dc_next")]


@pytest.mark.quick
@pytest.mark.parametrize("line, wrong", FAULTS)
def test_the_line_makes_the_first_wrong_value(line, wrong, tmp_path):
    text = BACKWARD.replace(line, wrong)
    assert text != BACKWARD
    (tmp_path / "mine.py").write_text(text)
    space = {"np": np, "sigmoid": lambda z: 1 / (1 + np.exp(-z))}
    exec(compile(text, str(tmp_path / "mine.py"), "exec"), space)
    report = mg.audit(lstm, space["backward"], X, H, C, W, U, B)
    assert report.causes and report.causes[0].backward_line.endswith(f": {wrong}"), report


def gates(x, h, Ws, Us):
    """A loop over gates in a loop over time: one line for all gates."""
    for t in range(3):
        z = []
        for W, U in zip(Ws, Us):
            a = x[t] @ W + h @ U
            z.append(mg.sigmoid(a))
        h = z[0] * h + (1 - z[0]) * z[1]
    return h


def gates_backward(dh, x, h, Ws, Us, first=lambda dz, z: dz * z * (1 - z)):
    hs, zs = [h], []
    for t in range(3):
        zs.append([1 / (1 + np.exp(-(x[t] @ W + hs[t] @ U))) for W, U in zip(Ws, Us)])
        hs.append(zs[t][0] * hs[t] + (1 - zs[t][0]) * zs[t][1])
    dx, dWs, dUs = np.zeros_like(x), [np.zeros_like(W) for W in Ws], [np.zeros_like(U) for U in Us]
    for t in (2, 1, 0):
        z, u = zs[t]
        das = first(dh * (hs[t] - u), z), dh * (1 - z) * u * (1 - u)
        dh = dh * z + sum(da @ U.T for da, U in zip(das, Us))
        for k, da in enumerate(das):
            dWs[k] += x[t].T @ da
            dUs[k] += hs[t].T @ da
            dx[t] += da @ Ws[k].T
    return dx, dh, dWs, dUs


def test_a_fault_at_one_of_the_gates_of_a_loop():
    inputs = np.zeros((3, 2, 5)), np.zeros((2, 4)), [np.zeros((5, 4))] * 2, [np.zeros((4, 4))] * 2
    assert mg.audit(gates, gates_backward, *inputs).ok
    report = mg.audit(gates, lambda *a: gates_backward(*a, first=lambda dz, z: dz), *inputs)
    assert "lacks the derivative of its sigmoid" in report.causes[0].text and not report.unexplained, report
