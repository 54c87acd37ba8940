"""The gradient microscope: the public names of `mg.bptt`, and the questions to ask of one recording.

```python
with mg.bptt.record() as rec:
    loss = loss_fn(model, batch)
    loss.backward()
lstm = rec["lstm"]             # by the module's path; rec[0] is the first scan that ran
lstm.values["ft"]              # (T, H, B)   the value that the cell calls ft, at every step
lstm.grads["ft"]               # (T, H, B)   dL/dft at every step; so likewise for states and inputs
lstm.weight_grads("W")         # (T, 4H, H + D)   what each step added to dL/dW; its sum over time is W.grad
```
Every recurrence is one cell in one `scan`, so one recording answers every question. Recording changes neither the model
nor the graph: the scan remains one op, with the same gradients up to rounding. Outside `record` nothing changes and
nothing is slower.

recording.py makes a recording (`record`, `Recording`, `Record`). Each question is a function in a file of its own:

    credit(rec, loss_by_step)   the gradient that the loss at step s sends to the weights as step t used them
    jacobians(rec)              d(state_t)/d(state_{t−1}), its singular values, products over lags, Lyapunov exponent
    truncation(rec, ks)         the error of a backward truncated to k steps
    paths(rec)                  the part of the state (c or a) that a gradient came through
    saturation(rec)             closed and open gates, dead and exploding units, the first NaN

`rtrl(cell, state, xs, weights)` needs no recording: it computes the same gradient forward in time.

`rec` is the `Record` of one scan, or a recording that has only one scan. Time is always in the order of xs.
"""

from minigrad.microscope.credit import Credit, credit
from minigrad.microscope.jacobians import jacobians
from minigrad.microscope.paths import paths
from minigrad.microscope.recording import Record, Recording, record
from minigrad.microscope.rtrl import rtrl
from minigrad.microscope.saturation import saturation
from minigrad.microscope.truncation import truncation

__all__ = ["Credit", "Record", "Recording", "credit", "jacobians", "paths", "record", "rtrl",
           "saturation", "truncation"]
