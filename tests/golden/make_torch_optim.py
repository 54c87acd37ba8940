"""Record PyTorch's optimisers on given gradients, in float64, for `tests/test_optim.py`.

Writes torch_optim.npz beside this file, for tests without torch. With torch, the tests call `torch_steps` themselves:

    python tests/golden/make_torch_optim.py
"""

from pathlib import Path

import numpy as np

SHAPES = ((3, 4), (5,), ())
STEPS, CLIP = 20, 2.0

# name in torch.optim, settings by PyTorch's names
SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
]


def label(name, settings):
    return f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"


def problem(dtype=np.float64):
    """First values of the parameters, and gradients for STEPS steps; the second parameter has none at every third."""
    rng = np.random.default_rng(0)
    values = [np.asarray(rng.normal(size=shape), dtype) for shape in SHAPES]
    gradients = [[None if i == 1 and step % 3 == 2 else np.asarray(rng.normal(size=shape), dtype)
                  for i, shape in enumerate(SHAPES)] for step in range(STEPS)]
    return values, gradients


def torch_steps(name, settings, dtype=np.float64):
    """The parameters after all steps, and the norms before clipping."""
    import torch

    values, gradients = problem(dtype)
    parameters = [torch.tensor(value, requires_grad=True) for value in values]
    optimizer, norms = getattr(torch.optim, name)(parameters, **settings), []
    for step in gradients:
        for p, g in zip(parameters, step):
            p.grad = None if g is None else torch.tensor(g)
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, CLIP)))
        optimizer.step()
    return [p.detach().numpy().copy() for p in parameters], norms


if __name__ == "__main__":
    path = Path(__file__).with_name("torch_optim.npz")
    found = {label(*row): torch_steps(*row) for row in SETTINGS}
    np.savez_compressed(path, **{f"{key}: {i}": p for key, (parameters, _) in found.items()
                                 for i, p in enumerate(parameters)})
    print(f"{path}: {path.stat().st_size} bytes")
