import numpy as np

def sigmoid(x):
    return 1 / (1 + np.exp(-x))

def softmax(x):
    e = np.exp(x - np.max(x))
    return e / np.sum(e)

def init_weights(a, b):
    return np.random.randn(a, b) * 0.1

class LSTM:
    def __init__(self, input_size, hidden_size, output_size, learning_rate=0.001):
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.lr = learning_rate
        self.Wf = init_weights(hidden_size, input_size + hidden_size)
        self.Wi = init_weights(hidden_size, input_size + hidden_size)
        self.Wc = init_weights(hidden_size, input_size + hidden_size)
        self.Wo = init_weights(hidden_size, input_size + hidden_size)
        self.Wy = init_weights(output_size, hidden_size)
        self.bf = np.zeros((hidden_size, 1))
        self.bi = np.zeros((hidden_size, 1))
        self.bc = np.zeros((hidden_size, 1))
        self.bo = np.zeros((hidden_size, 1))
        self.by = np.zeros((output_size, 1))
        self.reset()

    def reset(self):
        self.z, self.f, self.i, self.g, self.o, self.y = [], [], [], [], [], []
        self.h = [np.zeros((self.hidden_size, 1))]
        self.c = [np.zeros((self.hidden_size, 1))]

    def forward(self, inputs):
        self.reset()
        outputs = []
        for x in inputs:
            z = np.vstack((self.h[-1], x))
            f = sigmoid(self.Wf @ z + self.bf)
            i = sigmoid(self.Wi @ z + self.bi)
            g = np.tanh(self.Wc @ z + self.bc)
            o = sigmoid(self.Wo @ z + self.bo)
            c = f * self.c[-1] + i * g
            h = o * np.tanh(c)
            y = softmax(self.Wy @ h + self.by)
            self.z.append(z); self.f.append(f); self.i.append(i); self.g.append(g); self.o.append(o)
            self.c.append(c); self.h.append(h); self.y.append(y)
            outputs.append(y)
        return outputs

    def backward(self, targets):
        self.dWf, self.dWi, self.dWc, self.dWo = (np.zeros_like(w) for w in (self.Wf, self.Wi, self.Wc, self.Wo))
        self.dbf, self.dbi, self.dbc, self.dbo = (np.zeros_like(b) for b in (self.bf, self.bi, self.bc, self.bo))
        self.dWy, self.dby = np.zeros_like(self.Wy), np.zeros_like(self.by)
        dh_next = np.zeros((self.hidden_size, 1))
        dc_next = np.zeros((self.hidden_size, 1))
        for t in reversed(range(len(targets))):
            dy = self.y[t].copy()
            dy[targets[t]] -= 1
            self.dWy += dy @ self.h[t + 1].T
            self.dby += dy
            dh = self.Wy.T @ dy + dh_next
            tanh_c = np.tanh(self.c[t + 1])
            do = dh * tanh_c * self.o[t] * (1 - self.o[t])
            dc = dh * self.o[t] * (1 - tanh_c ** 2) + dc_next
            df = dc * self.c[t] * self.f[t] * (1 - self.f[t])
            di = dc * self.g[t] * self.i[t] * (1 - self.i[t])
            dg = dc * self.i[t] * (1 - self.g[t] ** 2)
            self.dWf += df @ self.z[t].T; self.dbf += df
            self.dWi += di @ self.z[t].T; self.dbi += di
            self.dWc += dg @ self.z[t].T; self.dbc += dg
            self.dWo += do @ self.z[t].T; self.dbo += do
            dz = self.Wf.T @ df + self.Wi.T @ di + self.Wc.T @ dg + self.Wo.T @ do
            dh_next = dz[:self.hidden_size]
            dc_next = dc * self.f[t]

    def step(self):
        for name in ("Wf", "Wi", "Wc", "Wo", "Wy", "bf", "bi", "bc", "bo", "by"):
            setattr(self, name, getattr(self, name) - self.lr * getattr(self, "d" + name))
