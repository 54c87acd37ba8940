"""document and its backward pass, derived by minigrad for x_t (3, 4), a_prev (5, 4), c_prev (5,
4), Wf (5, 8), bf (5, 1), Wi (5, 8), bi (5, 1), Wc (5, 8), bc (5, 1), Wo (5, 8), bo (5, 1), Wy
(2, 5), by (2, 1)."""

import numpy as np


def sigmoid(x):
    return 0.5 * np.tanh(0.5 * x) + 0.5


def shifted_exp(x, axis):
    x = np.asarray(x) + 0.0  # floats: −inf, the maximum of nothing, is not an integer
    m = np.max(np.real(x), axis=axis, keepdims=True, initial=-np.inf)
    m = np.where(np.isfinite(m), m, 0)
    with np.errstate(under="ignore"):
        return np.exp(x - m), m


def softmax(x, *, axis=-1):
    e, _ = shifted_exp(x, axis)
    return e / np.sum(e, axis=axis, keepdims=True)


def forward(x_t, a_prev, c_prev, parameters):
    Wf = parameters["Wf"]
    bf = parameters["bf"]
    Wi = parameters["Wi"]
    bi = parameters["bi"]
    Wc = parameters["Wc"]
    bc = parameters["bc"]
    Wo = parameters["Wo"]
    bo = parameters["bo"]
    Wy = parameters["Wy"]
    by = parameters["by"]
    concat = np.concatenate([a_prev, x_t])
    ft = sigmoid(Wf @ concat + bf)
    it = sigmoid(Wi @ concat + bi)
    cct = np.tanh(Wc @ concat + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(Wo @ concat + bo)
    tanh_c_next = np.tanh(c_next)
    a_next = ot * tanh_c_next
    yt_pred = softmax(Wy @ a_next + by, axis=0)
    cache = (a_prev, c_prev, Wf, Wi, Wc, Wo, Wy, concat, ft, it, cct, ot, tanh_c_next, a_next,
             yt_pred)
    return (a_next, c_next, yt_pred), cache


def backward(d_output, cache):
    d_a_next, d_c_next, d_yt_pred = d_output
    (a_prev, c_prev, Wf, Wi, Wc, Wo, Wy, concat, ft, it, cct, ot, tanh_c_next, a_next, yt_pred) = cache
    n_a = a_prev.shape[0]

    # yt_pred = softmax(Wy @ a_next + by, axis=0)
    d_yt_pred_in = yt_pred * (d_yt_pred - np.sum(d_yt_pred * yt_pred, axis=0, keepdims=True))
    d_by = np.sum(d_yt_pred_in, axis=1, keepdims=True)
    d_Wy = d_yt_pred_in @ a_next.T
    d_a_next = d_a_next + Wy.T @ d_yt_pred_in

    # a_next = ot * tanh_c_next
    d_ot = d_a_next * tanh_c_next
    d_tanh_c_next = d_a_next * ot

    # tanh_c_next = np.tanh(c_next)
    d_c_next = d_c_next + d_tanh_c_next * (1.0 - tanh_c_next * tanh_c_next)

    # ot = sigmoid(Wo @ concat + bo)
    d_ot_in = d_ot * ot * (1.0 - ot)
    d_bo = np.sum(d_ot_in, axis=1, keepdims=True)
    d_Wo = d_ot_in @ concat.T

    # c_next = ft * c_prev + it * cct
    d_it = d_c_next * cct
    d_cct = d_c_next * it
    d_ft = d_c_next * c_prev
    d_c_prev = d_c_next * ft

    # cct = np.tanh(Wc @ concat + bc)
    d_cct_in = d_cct * (1.0 - cct * cct)
    d_bc = np.sum(d_cct_in, axis=1, keepdims=True)
    d_Wc = d_cct_in @ concat.T

    # it = sigmoid(Wi @ concat + bi)
    d_it_in = d_it * it * (1.0 - it)
    d_bi = np.sum(d_it_in, axis=1, keepdims=True)
    d_Wi = d_it_in @ concat.T

    # ft = sigmoid(Wf @ concat + bf)
    d_ft_in = d_ft * ft * (1.0 - ft)
    d_bf = np.sum(d_ft_in, axis=1, keepdims=True)
    d_Wf = d_ft_in @ concat.T
    d_concat = Wo.T @ d_ot_in + Wc.T @ d_cct_in + Wi.T @ d_it_in + Wf.T @ d_ft_in

    # concat = np.concatenate([a_prev, x_t])
    d_a_prev = d_concat[:n_a]
    d_x_t = d_concat[n_a:]
    return (d_x_t, d_a_prev, d_c_prev, {"Wf": d_Wf, "bf": d_bf, "Wi": d_Wi, "bi": d_bi, "Wc": d_Wc,
            "bc": d_bc, "Wo": d_Wo, "bo": d_bo, "Wy": d_Wy, "by": d_by})
