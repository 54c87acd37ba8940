"""Samples: the distribution of the model, batches, and what does not fit."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.training import SequenceModel, sample

MODEL = SequenceModel(5, 5, cell="gru", hidden=6, symbols=True, rng=0)
LOGITS = np.log([0.1, 0.2, 0.3, 0.4])


class Constant(nn.Module):
    """A model without memory, of these probabilities."""

    def __call__(self, x, state=None):
        return np.broadcast_to(LOGITS, (*np.shape(x), 4)), None


def test_one_sequence_is_what_choice_draws():
    rng, state, codes, drawn = np.random.default_rng(3), None, np.array([[0]]), []
    for _ in range(20):
        outputs, state = MODEL(codes, state)
        p = np.exp(np.asarray(outputs.detach())[-1, 0].astype(float))
        codes = np.array([[rng.choice(5, p=p / p.sum())]])
        drawn.append(codes.item())
    assert sample(MODEL, 20, 3).tolist() == drawn == mg.sample(MODEL, 20, np.random.default_rng(3), [0]).tolist()
    assert sample(MODEL, 20, 3, batch=1)[:, 0].tolist() == drawn


def test_a_batch_has_the_models_probabilities():
    drawn = sample(Constant(), 50, 0, batch=400)
    assert drawn.shape == (50, 400)
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=4) / drawn.size, np.exp(LOGITS), atol=0.01)
    sharp = np.bincount(sample(Constant(), 50, 0, temperature=0.5, batch=400).ravel()) / drawn.size
    np.testing.assert_allclose(sharp, np.exp(2 * LOGITS) / np.exp(2 * LOGITS).sum(), atol=0.01)
    assert (sample(Constant(), 5, 0, temperature=0, batch=3) == 3).all()
    assert (sample(Constant(), 50, 0, temperature=1e-6, batch=3) == 3).all()


def test_each_sequence_may_have_a_prime_of_its_own():
    primes = np.array([[0, 1, 2], [3, 4, 0]])
    drawn = sample(MODEL, 6, prime=primes, temperature=0, batch=3)
    for i in range(3):
        assert drawn[:, i].tolist() == sample(MODEL, 6, prime=primes[:, i], temperature=0).tolist()


@pytest.mark.parametrize("given, sentence", [
    ({"prime": []}, "0 symbols"), ({"prime": "ab"}, "symbols are integers: give the positions"),
    ({"prime": [9]}, "takes symbols from 0 to 4, and x contains 9"), ({"prime": np.zeros((2, 3), int)}, "batch=1"),
    ({"batch": 0}, "batch one above 0"), ({"length": -1}, "length is a whole number from 0 on"),
    ({"temperature": -1}, "temperature"), ({"temperature": float("nan")}, "temperature"),
    ({"model": SequenceModel(2, 5, rng=0)}, "takes features")], ids=str)
def test_what_cannot_be_sampled_is_a_sentence(given, sentence):
    with pytest.raises(ValueError) as error:
        sample(**({"model": MODEL, "length": 3, "rng": 0} | given))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_diverged_model_is_named():
    model = SequenceModel(5, 5, hidden=3, symbols=True, rng=0)
    model.linear.bias.data = np.full(5, np.nan)
    with pytest.raises(ValueError, match="logits contain NaN or infinity after 0 symbols"):
        sample(model, 3, 0)
