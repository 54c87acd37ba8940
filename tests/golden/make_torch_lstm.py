"""Record PyTorch's LSTM over a whole sequence, in float64, for `tests/test_document.py`.

Writes torch_lstm.npz beside this file. It needs torch; the tests that read the file do not:

    python tests/golden/make_torch_lstm.py

Names, layout and gate order are PyTorch's, so the tests cover the translation too. The numbers come from NumPy's
generator, so only the computation is PyTorch's.
"""

from pathlib import Path

import numpy as np

SIZES = {"n_x": 3, "n_a": 5, "n_y": 4, "m": 2, "T_x": 7}


def torch_lstm(n_x: int, n_a: int, n_y: int, m: int, T_x: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs, parameters, outputs and gradients of L = Σ da·a + Σ dy·y + Σ dc_last·c_last, sequence first.

    y is the softmax of a linear head. Keys: the inputs by name, parameters as PyTorch calls them, "grad …" of each.
    """
    import torch

    rng = np.random.default_rng(seed)
    lstm = torch.nn.LSTM(n_x, n_a, dtype=torch.float64)
    head = torch.nn.Linear(n_a, n_y, dtype=torch.float64)
    parameters = {**dict(lstm.named_parameters()), **{f"head.{k}": p for k, p in head.named_parameters()}}
    with torch.no_grad():
        for p in parameters.values():
            p.copy_(torch.from_numpy(rng.uniform(-1.0, 1.0, p.shape)))
    given = {"x": rng.normal(size=(T_x, m, n_x)), "h0": rng.normal(size=(1, m, n_a)),
             "da": rng.normal(size=(T_x, m, n_a)), "dy": rng.normal(size=(T_x, m, n_y)),
             "dc_last": rng.normal(size=(1, m, n_a))}
    x, h0 = (torch.tensor(given[name], requires_grad=True) for name in ("x", "h0"))

    a, (_, c_last) = lstm(x, (h0, torch.zeros_like(h0)))
    y = torch.softmax(head(a), dim=-1)
    loss = sum((torch.from_numpy(given[d]) * v).sum() for d, v in (("da", a), ("dy", y), ("dc_last", c_last)))
    loss.backward()

    out = {**given, "a": a, "y": y, "c_last": c_last, **parameters, "grad x": x.grad, "grad h0": h0.grad,
           **{f"grad {name}": p.grad for name, p in parameters.items()}}
    return {name: v if isinstance(v, np.ndarray) else v.detach().numpy().copy() for name, v in out.items()}


if __name__ == "__main__":
    path = Path(__file__).with_name("torch_lstm.npz")
    np.savez(path, **torch_lstm(**SIZES))
    print(f"{path}: {path.stat().st_size} bytes")
