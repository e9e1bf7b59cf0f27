"""Ctrl-C and SIGTERM as a request: finish the step, save, then leave."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kerasmodels.errors import KerasModelsError


class Interrupted(KerasModelsError):
    """The training was stopped by Ctrl-C or SIGTERM; everything up to then is saved."""

    exit_code = 130


@contextmanager
def stop_on_signal(notify: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one aborts at once.

    `notify` is called at the first signal. Handlers are put in place in the main thread only, never over a signal that
    is ignored (a job started with `nohup` or `&` stays immune), and the old ones return on leaving.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop.set()
        notify()

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
        yield stop
    finally:
        for number, handler in before.items():
            # None means it was not set from Python; the system's default is the closest there is.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
