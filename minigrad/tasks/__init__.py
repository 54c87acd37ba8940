"""Toy sequence problems generated from an explicit rng or a text; `TASKS` maps names to classes."""

from minigrad.tasks.adding import Adding, Adding1997
from minigrad.tasks.anbn import AnBn
from minigrad.tasks.copy_memory import Copy
from minigrad.tasks.long_lag import LongLag
from minigrad.tasks.parity import Parity
from minigrad.tasks.reber import Reber
from minigrad.tasks.sine import Sine
from minigrad.tasks.task import Batch, Task
from minigrad.tasks.temporal_order import TemporalOrder, TemporalOrder3, TemporalOrder4
from minigrad.tasks.text import Text

TASKS: dict[str, type[Task]] = {task.name: task for task in (
    Adding, Adding1997, Copy, Reber, TemporalOrder, TemporalOrder3, TemporalOrder4, LongLag, Parity, AnBn, Sine, Text)}

__all__ = ["TASKS", "Adding", "Adding1997", "AnBn", "Batch", "Copy", "LongLag", "Parity", "Reber", "Sine", "Task",
           "TemporalOrder", "TemporalOrder3", "TemporalOrder4", "Text"]
