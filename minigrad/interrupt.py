"""End the command `minigrad` without a traceback on Ctrl-C during its imports, with status 130 as in shells.

The package imports this file first. A program that uses minigrad as a library is not affected.
"""

import os
import signal
import sys

STATUS = 130


def leave(*_: object) -> None:
    os._exit(STATUS)  # an exception could be caught or printed by the module being imported


def is_command() -> bool:
    """Whether this process is `minigrad …` or `python -m minigrad …`."""
    started = sys.argv[0] if sys.argv else ""
    if started == "-m":  # sys.argv[0] while Python imports the package of `-m`
        module = sys.orig_argv.index("-m") + 1 if "-m" in sys.orig_argv else 0
        return sys.orig_argv[module:module + 1] == ["minigrad"] or "-mminigrad" in sys.orig_argv
    return os.path.splitext(os.path.basename(started))[0] == "minigrad"


def usual() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
