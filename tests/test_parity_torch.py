"""A whole training against PyTorch's: the same model, weights and batches, 200 steps of every optimiser with clipping.

PyTorch's LSTM has two biases where one does, and so learns them twice as fast: here its second one is fixed at 0, or
ours has two_biases.
"""

import numpy as np
import pytest

from minigrad import nn, optim

torch = pytest.importorskip("torch")

SYMBOLS, SIZE, BATCH, T, STEPS, CLIP = 11, 16, 4, 8, 200, 0.35

OPTIMISERS = [
    ("SGD", {"lr": 0.5}), ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
    ("RMSprop", {"lr": 2e-3}), ("RMSprop", {"lr": 2e-3, "alpha": 0.95, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 1e-3, "weight_decay": 1e-3}),
    ("Adam", {"lr": 5e-3}), ("Adam", {"lr": 5e-3, "betas": (0.8, 0.99), "weight_decay": 1e-3}), ("AdamW", {"lr": 5e-3}),
]


class Model(nn.Module):
    def __init__(self, dtype):
        self.embedding = nn.Embedding(SYMBOLS, SIZE - 3, dtype=dtype, rng=0)
        self.lstm = nn.LSTM(SIZE - 3, SIZE, dtype=dtype, rng=1)
        self.linear = nn.Linear(SIZE, SYMBOLS, dtype=dtype, rng=2)

    def __call__(self, x):
        return self.linear(self.lstm(self.embedding(x))[0])


class TorchModel(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.embedding = torch.nn.Embedding(SYMBOLS, SIZE - 3, dtype=dtype)
        self.lstm = torch.nn.LSTM(SIZE - 3, SIZE, dtype=dtype)
        self.lstm.bias_hh_l0.requires_grad_(False)  # two biases would go two steps where one goes one
        self.linear = torch.nn.Linear(SIZE, SYMBOLS, dtype=dtype)

    def forward(self, x):
        return self.linear(self.lstm(self.embedding(x))[0])


def batches():
    """Sequences in which, three times out of four, the previous symbol determines the next."""
    rng = np.random.default_rng(3)
    follows = rng.permutation(SYMBOLS)
    for _ in range(STEPS):
        x = rng.integers(0, SYMBOLS, (T + 1, BATCH))
        for t in range(1, T + 1):
            x[t] = np.where(rng.random(BATCH) < 0.75, follows[x[t - 1]], x[t])
        yield x[:-1], x[1:]


@pytest.fixture
def one_thread():
    """One thread: with products this small, several threads would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 2e-4)])
@pytest.mark.parametrize("name, settings", OPTIMISERS, ids=str)
def test_losses_of_a_training_are_pytorchs(name, settings, dtype, tolerance, one_thread):
    ours, theirs = Model(dtype), TorchModel(getattr(torch, dtype))
    theirs.load_state_dict({key: torch.tensor(array) for key, array in ours.to_torch().items()})
    trained = [p for p in theirs.parameters() if p.requires_grad]
    optimizer, reference = getattr(optim, name)(ours.parameters(), **settings), getattr(torch.optim, name)(
        trained, **settings)
    losses, norms = [], []
    for x, targets in batches():
        optimizer.zero_grad()
        loss = nn.cross_entropy(ours(x), targets)
        loss.backward()
        norm = optim.clip_grad_norm(optimizer.parameters, CLIP)
        optimizer.step()

        reference.zero_grad()
        logits = theirs(torch.tensor(x))
        their_loss = torch.nn.functional.cross_entropy(logits.reshape(-1, SYMBOLS), torch.tensor(targets).reshape(-1))
        their_loss.backward()
        their_norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        reference.step()
        losses.append((loss.item(), their_loss.item()))
        norms.append((norm, their_norm.item()))
    (loss, their_loss), (norm, their_norm) = np.array(losses).T, np.array(norms).T
    assert 0.2 < np.mean(norm > CLIP) < 1 and np.mean(loss[-20:]) < np.mean(loss[:20]) - 0.2  # it clips, and it learns
    assert np.abs(loss - their_loss).max() <= tolerance
    np.testing.assert_allclose(norm, their_norm, rtol=10 * tolerance)


@pytest.mark.parametrize("name, settings", [("Adam", {"lr": 5e-3}), ("SGD", {"lr": 0.5})], ids=["Adam", "SGD"])
@pytest.mark.parametrize("kind, options", [("LSTM", {}), ("GRU", {}), ("RNN", {}), ("RNN", {"nonlinearity": "relu"}),
                                           ("LSTM", {"num_layers": 2, "bidirectional": True})], ids=str)
def test_two_biases_train_as_pytorchs_own_layer_does(kind, options, name, settings, one_thread):
    """From PyTorch's own initial weights, with clipping: every weight after 20 steps. One bias goes elsewhere."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(5, 7, dtype=torch.float64, **options)
    rng = np.random.default_rng(1)
    data = [(rng.normal(size=(T, BATCH, 5)), rng.normal(size=(T, BATCH, 7 * (1 + theirs.bidirectional))))
            for _ in range(20)]

    start = {key: w.detach().numpy().copy() for key, w in theirs.state_dict().items()}
    reference, clipped = getattr(torch.optim, name)(theirs.parameters(), **settings), []
    for x, targets in data:
        reference.zero_grad()
        torch.nn.functional.mse_loss(theirs(torch.tensor(x))[0], torch.tensor(targets)).backward()
        clipped.append(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05).item() > 0.05)
        reference.step()
    assert sum(clipped) >= 5

    def after(two_biases):
        ours = getattr(nn, kind)(5, 7, dtype=float, two_biases=two_biases, rng=0, **options)
        ours.load_torch(start)
        optimizer = getattr(optim, name)(ours.parameters(), **settings)
        for x, targets in data:
            optimizer.zero_grad()
            nn.mse_loss(ours(x)[0], targets).backward()
            optim.clip_grad_norm(optimizer.parameters, 0.05)
            optimizer.step()
        return ours.to_torch()
    differences = {two: max(np.abs(w - theirs.state_dict()[key].numpy()).max() for key, w in after(two).items()
                            if "bias" not in key) for two in (True, False)}
    assert differences[True] < 1e-10 < 1e-4 < differences[False]
    for key, w in after(True).items():
        np.testing.assert_allclose(w, theirs.state_dict()[key].numpy(), rtol=0, atol=1e-10)
