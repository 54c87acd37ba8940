"""Modules: recurrent layers, and what every layer and model is made of."""

from minigrad.nn import init
from minigrad.nn.module import Module
from minigrad.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell, Stacked

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "Module", "RNNCell", "Recurrent", "Stacked", "init"]
