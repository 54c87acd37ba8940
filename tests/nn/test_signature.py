"""Wrong arguments of a class: the error names the class that was called and the arguments that it takes."""

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn.signature import UnknownOption, options_of
from minigrad.training.sequence_model import SequenceModel


class Plain(nn.Module):
    pass


class Own(nn.LSTMCell):
    """A layer that removes its own option from those that it passes on."""

    def __init__(self, inputs, units, **given):
        self.extra = given.pop("extra", 0)
        super().__init__(inputs, units, **given)


class Owns(nn.Stacked):
    Cell = Own


class Bare(nn.Recurrent):
    def __init__(self, size):
        self.size = size


class Bares(nn.Stacked):
    Cell = Bare


W = mg.tensor(np.ones(2), requires_grad=True)
OF_LAYERS = "input_size, hidden_size, num_layers, bidirectional, dropout, batch_first, dtype, rng, "
OF_LSTM = OF_LAYERS + "forget_bias, chrono, learned_state, two_biases"
MISTAKES = {
    "bias": (lambda: nn.LSTM(3, 4, bias=True), f"LSTM has no option bias: it takes {OF_LSTM}"),
    "projection": (lambda: nn.LSTM(3, 4, proj_size=2), f"LSTM has no option proj_size: it takes {OF_LSTM}"),
    "another layer's": (lambda: nn.GRU(3, 4, nonlinearity="relu"), "GRU has no option nonlinearity: it takes "
                        f"{OF_LAYERS}reset_after, chrono, learned_state, two_biases"),
    "two": (lambda: nn.RNN(3, 4, bias=True, device="cpu"), "RNN has no option bias, device: it takes "
            f"{OF_LAYERS}nonlinearity, learned_state, two_biases"),
    "misspelled": (lambda: nn.LSTM(3, 4, bidirectionnal=True), "LSTM has no option bidirectionnal (did you mean "
                   f"bidirectional?): it takes {OF_LSTM}"),
    "by position": (lambda: nn.LSTM(3, 4, 2, True), "LSTM takes input_size, hidden_size, num_layers by position, not 4 "
                    "arguments: give bidirectional, dropout, batch_first, dtype, rng, forget_bias, chrono, "
                    "learned_state, two_biases by name"),
    "missing": (lambda: nn.LSTM(3, hiden_size=4), f"LSTM needs hidden_size: it takes {OF_LSTM}"),
    "twice": (lambda: nn.LSTM(3, 4, 2, num_layers=2), "LSTM is given num_layers by position and by name: give it once"),
    "cell": (lambda: nn.LSTMCell(3, 4, bias=True), "LSTMCell has no option bias: it takes input_size, hidden_size, "
             "forget_bias, chrono, learned_state, two_biases, dtype, rng"),
    "cell by position": (lambda: nn.RNNCell(3, 4, True), "RNNCell takes input_size, hidden_size by position, not 3 "
                         "arguments: give nonlinearity, learned_state, two_biases, dtype, rng by name"),
    "Linear": (lambda: nn.Linear(3, 4, device="cpu"), "Linear has no option device: it takes in_features, "
               "out_features, bias, dtype, rng"),
    "Linear, four": (lambda: nn.Linear(3, 4, True, None), "Linear takes in_features, out_features, bias by position, "
                     "not 4 arguments: give dtype, rng by name"),
    "Embedding": (lambda: nn.Embedding(3, 4, padding_idx=0), "Embedding has no option padding_idx: it takes "
                  "num_embeddings, embedding_dim, dtype, rng"),
    "Dropout": (lambda: nn.Dropout(0.5, True), "Dropout takes p by position, not 2 arguments: give variational, rng by "
                "name"),
    "LayerNorm": (lambda: nn.LayerNorm(normalized_shape=3), "LayerNorm has no option normalized_shape: it takes size, "
                  "eps, axis, dtype"),
    "Sequential": (lambda: nn.Sequential(first=mg.tanh), "Sequential has no option first: it takes none"),
    "Recurrent": (lambda: nn.Recurrent(3), "Recurrent takes no arguments by position: give batch_first, reverse by "
                  "name"),
    "no __init__": (lambda: Plain(3), "Plain takes no arguments"),
    "no __init__, by name": (lambda: Plain(a=3), "Plain has no option a: it takes none"),
    "one's own": (lambda: Owns(3, 4, extr=1), f"Owns has no option extr: it takes {OF_LSTM}"),
    "one's own cell does not fit": (lambda: Bares(3, 4), "Bares builds its cells as Bare(input_size, hidden_size, "
                                    "dtype=…, rng=…), and Bare has no option dtype, rng: it takes size"),
    "model": (lambda: SequenceModel(3, 4, 5), "SequenceModel takes inputs, outputs by position, not 3 arguments: give "
              "cell, hidden, layers, dropout, symbols, embedding, dtype, rng by name"),
    "optimiser": (lambda: optim.Adam([W], amsgrad=True), "Adam has no option amsgrad: it takes params, lr, betas, eps, "
                  "weight_decay"),
    "optimiser without parameters": (lambda: optim.SGD(lr=0.1), "SGD needs params: it takes params, lr, momentum, "
                                     "dampening, weight_decay, nesterov"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_with_the_class_that_was_called(case):
    call, says = MISTAKES[case]
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value) == says


def test_an_option_that_a_class_removes_itself_is_accepted():
    assert Own(2, 3, extra=5, rng=0).extra == Owns(2, 3, extra=5, rng=0).layers["l0"].extra == 5


def test_copies_and_pickles_are_made_without_arguments():
    for made in (nn.LSTM(2, 3, rng=0), optim.Adam([W])):
        for twin in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert type(twin) is type(made)


def test_an_unknown_option_is_an_error_of_type_and_of_value():
    """Options also come from files and command lines."""
    error = UnknownOption("X", ["a", "b"], ["c"])
    assert isinstance(error, TypeError) and isinstance(error, ValueError) and error.names == ["a", "b"]
    assert options_of(Plain) == []
