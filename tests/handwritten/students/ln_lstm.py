import numpy as np

EPS = 1e-5

def sigmoid(x):
    return 1 / (1 + np.exp(-x))

def ln_fwd(a, gain, bias):
    mu = a.mean(axis=1, keepdims=True)
    sigma = np.sqrt(a.var(axis=1, keepdims=True) + EPS)
    norm = (a - mu) / sigma
    return gain * norm + bias, (a - mu, norm, sigma, gain)

def ln_bwd(dout, cache):
    centered, norm, sigma, gain = cache
    dgain = (dout * norm).sum(axis=0)
    dbias = dout.sum(axis=0)
    dn = dout * gain
    da = (dn - dn.mean(axis=1, keepdims=True) - norm * (dn * norm).mean(axis=1, keepdims=True)) / sigma
    return da, dgain, dbias

def lnlstm_forward(x, h, c, P):
    """Layer normalised LSTM cell (Ba et al.), gates in order i f o g, c is normalised before the tanh"""
    ax, cx = ln_fwd(x @ P['Wx'], P['gx'], P['bx'])
    ah, ch = ln_fwd(h @ P['Wh'], P['gh'], P['bh'])
    a = ax + ah
    H = h.shape[1]
    i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H:2*H]), sigmoid(a[:, 2*H:3*H])
    g = np.tanh(a[:, 3*H:])
    c_new = f * c + i * g
    cn, cc = ln_fwd(c_new, P['gc'], P['bc'])
    h_new = o * np.tanh(cn)
    return h_new, c_new, (x, h, c, i, f, o, g, cn, cx, ch, cc)

def lnlstm_backward(dh, dc, cache, P):
    x, h, c, i, f, o, g, cn, cx, ch, cc = cache
    t = np.tanh(cn)
    do = dh * t
    dcn = dh * o * (1 - t * t)
    dc_ln, dgc, dbc = ln_bwd(dcn, cc)
    dc = dc + dc_ln
    di, df, dg = dc * g, dc * c, dc * i
    da = np.hstack([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g)])
    dax, dgx, dbx = ln_bwd(da, cx)
    dah, dgh, dbh = ln_bwd(da, ch)
    return {'x': dax @ P['Wx'].T, 'h': dah @ P['Wh'].T, 'c': dc * f,
            'Wx': x.T @ dax, 'Wh': h.T @ dah,
            'gx': dgx, 'bx': dbx, 'gh': dgh, 'bh': dbh, 'gc': dgc, 'bc': dbc}
