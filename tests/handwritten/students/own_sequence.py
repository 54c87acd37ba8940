import numpy as np

def sig(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))

def lstm_cell_forward(xt, a_prev, c_prev, par):
    conc = np.vstack((a_prev, xt))
    ft, it, ot = [sig(par["W" + k] @ conc + par["b" + k]) for k in "fio"]
    cct = np.tanh(par["Wc"] @ conc + par["bc"])
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    return a_next, c_next, (conc, c_next, c_prev, ft, it, cct, ot)

def lstm_forward(x, a0, c0, par):
    a = np.zeros(a0.shape + (x.shape[2],))
    caches = []
    at, ct = a0, c0
    for t in range(x.shape[2]):
        at, ct, ch = lstm_cell_forward(x[:, :, t], at, ct, par)
        a[:, :, t] = at
        caches.append(ch)
    return a, ct, caches

def lstm_backward(da, dc_end, caches, par):
    n_a, m, T = da.shape
    n_x = par["Wf"].shape[1] - n_a
    grads = {"d" + k: np.zeros(v.shape) for k, v in par.items()}
    grads["dx"] = np.zeros((n_x, m, T))
    # walk back; da_t is what flows into a<t>, dc_t into c<t>
    da_t = da[:, :, -1].copy()
    dc_t = dc_end.copy()
    for t in range(T - 1, -1, -1):
        conc, c_next, c_prev, ft, it, cct, ot = caches[t]
        tc = np.tanh(c_next)
        dc_t += da_t * ot * (1 - tc ** 2)
        d = {"f": dc_t * c_prev * ft * (1 - ft),
             "i": dc_t * cct * it * (1 - it),
             "c": dc_t * it * (1 - cct ** 2),
             "o": da_t * tc * ot * (1 - ot)}
        dconc = np.zeros_like(conc)
        for k in d:
            grads["dW" + k] += d[k] @ conc.T
            grads["db" + k] += d[k].sum(axis=1)[:, None]
            dconc += par["W" + k].T @ d[k]
        grads["dx"][:, :, t] = dconc[n_a:]
        dc_t *= ft
        da_t = dconc[:n_a] + (da[:, :, t - 1] if t > 0 else 0)
    grads["da0"], grads["dc0"] = da_t, dc_t
    return grads
