"""A readable training loop, and runs that survive interruption."""

from minigrad.training.run import Run, load_model
from minigrad.training.sampling import sample
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.settings import Settings
from minigrad.training.trainer import Diverged, Trainer
from minigrad.training.windows import split_windows

__all__ = ["Diverged", "Run", "SequenceModel", "Settings", "Trainer", "load_model", "sample", "split_windows"]
