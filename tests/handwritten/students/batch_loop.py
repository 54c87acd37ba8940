import numpy as np

def softplus(x):
    return np.log1p(np.exp(x))

def forward(X, h0, Wx, Wh, b, Wy):
    # X (m, T, n_x), loops over the batch
    m, T, _ = X.shape
    n_h = h0.shape[1]
    A = np.zeros((m, T, n_h))
    H = np.zeros((m, T + 1, n_h))
    Y = np.zeros((m, T, Wy.shape[0]))
    for k in range(m):
        H[k, -1] = h0[k]              # H[k, t - 1] is then h0 for t = 0
        for t in range(T):
            A[k, t] = Wx @ X[k, t] + Wh @ H[k, t - 1] + b
            H[k, t] = softplus(A[k, t])
            Y[k, t] = Wy @ H[k, t]
    return Y, (X, A, H, Wx, Wh, Wy)

def backward(dY, cache):
    X, A, H, Wx, Wh, Wy = cache
    m, T, _ = X.shape
    dX, dh0 = np.zeros(X.shape), np.zeros((m, Wh.shape[0]))
    dWx, dWh, db, dWy = np.zeros(Wx.shape), np.zeros(Wh.shape), np.zeros(Wh.shape[0]), np.zeros(Wy.shape)
    for k in range(m):
        dh = np.zeros(Wh.shape[0])
        for t in range(T)[::-1]:
            dWy += np.outer(dY[k, t], H[k, t])
            da = (dh + Wy.T @ dY[k, t]) / (1 + np.exp(-A[k, t]))   # softplus' = sigmoid
            dWx += np.outer(da, X[k, t])
            dWh += np.outer(da, H[k, t - 1])
            db += da
            dX[k, t] = Wx.T @ da
            dh = Wh.T @ da
        dh0[k] = dh
    return dX, dh0, dWx, dWh, db, dWy
