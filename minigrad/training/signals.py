"""Let the current step finish after Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal


class SignalGuard:
    """While it is open, the first Ctrl-C or SIGTERM is only noted in `came`; a second Ctrl-C interrupts as usual."""

    def __enter__(self) -> SignalGuard:
        self.received = False
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.before[number] = signal.signal(number, self.receive)
            except ValueError:  # not in the main thread, where none arrives either
                pass
        return self

    def receive(self, *_: object) -> None:
        self.received = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set outside of Python
