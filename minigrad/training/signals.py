"""Let the current training step finish after Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import signal


class SignalGuard:
    """While active, the first Ctrl-C or SIGTERM only sets `received`; a second Ctrl-C raises KeyboardInterrupt."""

    def __enter__(self) -> SignalGuard:
        self.received = False
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # only the main thread may set handlers, and only it receives signals
                self.before[number] = signal.signal(number, self.receive)
        return self

    def receive(self, *_: object) -> None:
        self.received = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
