"""Functions whose names say nothing in English, and targets among them."""
import numpy as np
def avant(X, h0, parametres):
    Wx, Wh, b, Wy, by = (parametres[k] for k in ('Wx', 'Wh', 'b', 'Wy', 'by'))
    h = h0
    etats, sorties = [h0], []
    for x in X:
        h = np.tanh(Wx @ x + Wh @ h + b)
        etats.append(h)
        sorties.append(Wy @ h + by)
    return sorties, etats
def cout(sorties, cibles):
    return sum(0.5 * np.sum((s - c) ** 2) for s, c in zip(sorties, cibles))
def retro(X, sorties, cibles, etats, parametres):
    g = {k: np.zeros_like(v) for k, v in parametres.items()}
    dh = np.zeros_like(etats[0])
    for t in reversed(range(len(X))):
        ds = sorties[t] - cibles[t]
        g['Wy'] += np.outer(ds, etats[t + 1])
        g['by'] += ds
        dh = dh + parametres['Wy'].T @ ds
        dz = dh * (1 - etats[t + 1] ** 2)
        g['Wx'] += np.outer(dz, X[t])
        g['Wh'] += np.outer(dz, etats[t])
        g['b'] += dz
        dh = parametres['Wh'].T @ dz
    return g, dh
