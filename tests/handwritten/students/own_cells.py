"""A GRU with a dict of parameters: a cell in no table."""
import numpy as np

def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))

def gru_cell_forward(xt, a_prev, parameters):
    """
    xt -- (n_x, m), a_prev -- (n_a, m)
    parameters -- Wu, Wr, Wc (n_a, n_a + n_x), bu, br, bc (n_a, 1)
    """
    Wu, bu = parameters["Wu"], parameters["bu"]
    Wr, br = parameters["Wr"], parameters["br"]
    Wc, bc = parameters["Wc"], parameters["bc"]
    concat = np.concatenate((a_prev, xt), axis=0)
    ut = sigmoid(np.dot(Wu, concat) + bu)
    rt = sigmoid(np.dot(Wr, concat) + br)
    concat_r = np.concatenate((rt * a_prev, xt), axis=0)
    cct = np.tanh(np.dot(Wc, concat_r) + bc)
    a_next = ut * cct + (1 - ut) * a_prev
    cache = (a_next, a_prev, ut, rt, cct, xt, parameters)
    return a_next, cache

def gru_cell_backward(da_next, cache):
    (a_next, a_prev, ut, rt, cct, xt, parameters) = cache
    n_a = a_next.shape[0]
    concat = np.concatenate((a_prev, xt), axis=0)
    concat_r = np.concatenate((rt * a_prev, xt), axis=0)
    dut = da_next * (cct - a_prev) * ut * (1 - ut)
    dcct = da_next * ut * (1 - cct ** 2)
    dconcat_r = np.dot(parameters["Wc"].T, dcct)
    drt = dconcat_r[:n_a] * a_prev * rt * (1 - rt)
    dconcat = np.dot(parameters["Wu"].T, dut) + np.dot(parameters["Wr"].T, drt)
    da_prev = da_next * (1 - ut) + dconcat[:n_a] + dconcat_r[:n_a] * rt
    dxt = dconcat[n_a:] + dconcat_r[n_a:]
    return {"dxt": dxt, "da_prev": da_prev,
            "dWu": np.dot(dut, concat.T), "dbu": np.sum(dut, axis=1, keepdims=True),
            "dWr": np.dot(drt, concat.T), "dbr": np.sum(drt, axis=1, keepdims=True),
            "dWc": np.dot(dcct, concat_r.T), "dbc": np.sum(dcct, axis=1, keepdims=True)}

def gru_forward(x, a0, parameters):
    n_x, m, T_x = x.shape
    a = np.zeros((a0.shape[0], m, T_x))
    a_next = a0
    caches = []
    for t in range(T_x):
        a_next, cache = gru_cell_forward(x[:, :, t], a_next, parameters)
        a[:, :, t] = a_next
        caches.append(cache)
    return a, (caches, x)

def gru_backward(da, caches):
    caches, x = caches
    n_a, m, T_x = da.shape
    dx = np.zeros_like(x)
    da_prevt = np.zeros((n_a, m))
    parameters = caches[0][-1]
    grads = {"d" + k: np.zeros_like(v) for k, v in parameters.items()}
    for t in reversed(range(T_x)):
        g = gru_cell_backward(da[:, :, t] + da_prevt, caches[t])
        da_prevt = g["da_prev"]
        dx[:, :, t] = g["dxt"]
        for k in grads:
            grads[k] += g[k]
    grads["dx"] = dx
    grads["da0"] = da_prevt
    return grads
