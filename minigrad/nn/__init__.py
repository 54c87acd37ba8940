"""Modules: layers, recurrent ones above all, what every layer and model is made of, and losses."""

from minigrad.nn import init
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear, Sequential
from minigrad.nn.losses import binary_cross_entropy, cross_entropy, mse_loss
from minigrad.nn.module import Module
from minigrad.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell, Stacked

__all__ = ["GRU", "LSTM", "RNN", "Dropout", "Embedding", "GRUCell", "LSTMCell", "LayerNorm", "Linear", "Module",
           "RNNCell", "Recurrent", "Sequential", "Stacked", "binary_cross_entropy", "cross_entropy", "init",
           "mse_loss"]
