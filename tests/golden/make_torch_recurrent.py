"""Record PyTorch's RNN, GRU and LSTM over whole sequences, in float64, for `tests/nn/test_recurrent.py`.

Writes torch_recurrent.npz beside this file, for tests without torch. With torch, the tests call
`torch_recurrent` themselves, for many more configurations:

    python tests/golden/make_torch_recurrent.py

Names, layout and gate order are PyTorch's, so the tests cover the translation too. The numbers come from NumPy's
generator, so only the computation is PyTorch's.
"""

from pathlib import Path

import numpy as np

SIZES = {"input_size": 3, "hidden_size": 4, "batch": 3, "steps": 5}
LENGTHS = [2, 5, 1]  # not sorted, one of a single step

# kind, options of the module, lengths. "relu" is the RNN with that nonlinearity.
CONFIGURATIONS = [
    ("RNN", {"bidirectional": True}, LENGTHS),
    ("relu", {}, None),
    ("GRU", {"bidirectional": True, "batch_first": True}, LENGTHS),
    ("LSTM", {"num_layers": 2, "bidirectional": True}, LENGTHS),
]


def torch_recurrent(kind, options, lengths=None, *, input_size, hidden_size, batch, steps, seed=0):
    """Inputs, parameters, results and gradients of L = Σ d_output·output + Σ d_h·h_n (+ Σ d_c·c_n).

    Keys: x, h0, c0, d_output, d_h, d_c; output, h_n, c_n; parameters as PyTorch calls them; "grad …" of x, h0, c0 and
    of each parameter. Those with c are an LSTM's.
    """
    import torch

    rng = np.random.default_rng(seed)
    nonlinearity = {"nonlinearity": "relu"} if kind == "relu" else {}
    module = getattr(torch.nn, "RNN" if kind == "relu" else kind)(
        input_size, hidden_size, dtype=torch.float64, **options, **nonlinearity)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.from_numpy(rng.uniform(-0.7, 0.7, p.shape)))
    first = options.get("batch_first", False)
    directions = 2 if options.get("bidirectional") else 1
    state = (directions * options.get("num_layers", 1), batch, hidden_size)
    outer = (batch, steps) if first else (steps, batch)
    shapes = {"x": (*outer, input_size), "h0": state, "d_output": (*outer, directions * hidden_size), "d_h": state}
    shapes |= {"c0": state, "d_c": state} if kind == "LSTM" else {}
    given = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    starts = {name: torch.tensor(given[name], requires_grad=True) for name in ("x", "h0", "c0") if name in given}

    x, *start = starts.values()
    if lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), first, enforce_sorted=False)
    output, end = module(x, tuple(start) if kind == "LSTM" else start[0])
    if lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, first, total_length=steps)
    results = {"output": output, **dict(zip(("h_n", "c_n"), end if kind == "LSTM" else (end,)))}
    pairs = zip(("d_output", "d_h", "d_c"), results.values())
    sum((torch.from_numpy(given[d]) * value).sum() for d, value in pairs).backward()

    parameters = dict(module.named_parameters())
    tensors = {**results, **parameters, **{f"grad {name}": p.grad for name, p in {**starts, **parameters}.items()}}
    return {**given, **{name: value.detach().numpy().copy() for name, value in tensors.items()}}


if __name__ == "__main__":
    path = Path(__file__).with_name("torch_recurrent.npz")
    np.savez_compressed(path, **{f"{row[0]}: {key}": array for row in CONFIGURATIONS
                                 for key, array in torch_recurrent(*row, **SIZES).items()})
    print(f"{path}: {path.stat().st_size} bytes")
