"""A step forward and a step back, called over time; the gradients of global weights are kept in globals."""
import numpy as np

data = open("input.txt").read()
chars = sorted(set(data))
hidden_size, vocab_size = 100, len(chars)

W_h = np.random.randn(hidden_size, hidden_size + vocab_size) * 0.1
b_h = np.zeros((hidden_size, 1))
W_y = np.random.randn(vocab_size, hidden_size) * 0.1
b_y = np.zeros((vocab_size, 1))
dW_h, db_h, dW_y, db_y = np.zeros_like(W_h), np.zeros_like(b_h), np.zeros_like(W_y), np.zeros_like(b_y)


def forward(x, h_prev):
    z = np.vstack((h_prev, x))
    h = np.tanh(np.dot(W_h, z) + b_h)
    y = np.dot(W_y, h) + b_y
    p = np.exp(y) / np.sum(np.exp(y))
    return z, h, y, p


def backward(target, dh_next, z, h, y, p):
    global dW_h, db_h, dW_y, db_y
    dy = np.copy(p)
    dy[target] -= 1
    dW_y += np.dot(dy, h.T)
    db_y += dy
    dh = np.dot(W_y.T, dy) + dh_next
    dz = dh * (1 - h * h)
    dW_h += np.dot(dz, z.T)
    db_h += dz
    return np.dot(W_h.T, dz)[:hidden_size]


def forward_backward(inputs, targets, h_prev):
    z_s, h_s, y_s, p_s = {}, {-1: np.copy(h_prev)}, {}, {}
    loss = 0
    for t in range(len(inputs)):
        x = np.zeros((vocab_size, 1))
        x[inputs[t]] = 1
        z_s[t], h_s[t], y_s[t], p_s[t] = forward(x, h_s[t - 1])
        loss += -np.log(p_s[t][targets[t], 0])
    for d in [dW_h, db_h, dW_y, db_y]:
        d.fill(0)
    dh_next = np.zeros_like(h_s[0])
    for t in reversed(range(len(inputs))):
        dh_next = backward(targets[t], dh_next, z_s[t], h_s[t], y_s[t], p_s[t])
    return loss, h_s[len(inputs) - 1]
