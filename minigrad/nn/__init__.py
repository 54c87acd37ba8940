"""Recurrent and other layers, their base class `Module`, losses, initial values."""

from minigrad.nn import init
from minigrad.nn.cells import GRUCell, LSTMCell, RNNCell
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear, Sequential
from minigrad.nn.losses import binary_cross_entropy, cross_entropy, mse_loss
from minigrad.nn.module import Module
from minigrad.nn.recurrent import Recurrent
from minigrad.nn.stacked import GRU, LSTM, RNN, Stacked

__all__ = ["GRU", "LSTM", "RNN", "Dropout", "Embedding", "GRUCell", "LSTMCell", "LayerNorm", "Linear", "Module",
           "RNNCell", "Recurrent", "Sequential", "Stacked", "binary_cross_entropy", "cross_entropy", "init",
           "mse_loss"]
