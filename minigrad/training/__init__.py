"""A readable training loop, runs that survive interruption, and sweeps over many of them."""

from minigrad.training.lr_range import LrRange, lr_range_test
from minigrad.training.run import Run, load_model
from minigrad.training.sampling import sample
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.settings import Settings
from minigrad.training.sweep import Sweep, sweep
from minigrad.training.trainer import Diverged, Trainer
from minigrad.training.windows import split_windows

__all__ = ["Diverged", "LrRange", "Run", "SequenceModel", "Settings", "Sweep", "Trainer", "load_model",
           "lr_range_test", "sample", "split_windows", "sweep"]
