"""An answer that does not return is interrupted."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLong(BaseException):
    """Not an Exception, so that an answer's `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong inside the block after `seconds`, and each second again, for an answer may catch it.

    In the main thread, where notebooks run their cells, this also ends a `time.sleep`, on Windows too.
    """
    done, late = threading.Event(), threading.Event()
    thread = threading.get_ident()
    in_main = threading.current_thread() is threading.main_thread()

    def wait() -> None:
        if done.wait(seconds):
            return
        late.set()
        while not done.is_set():
            _interrupt(thread, in_main)
            done.wait(1)

    def on_signal(number: int, frame: object) -> None:
        if late.is_set() and not done.is_set():
            raise TookTooLong
        if not late.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_signal) if in_main else None
    watch = threading.Thread(target=wait, daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        if in_main:
            signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


def _interrupt(thread: int, in_main: bool) -> None:
    if not in_main:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TookTooLong))
    elif os.name == "nt":
        signal.raise_signal(signal.SIGINT)
    else:
        signal.pthread_kill(thread, signal.SIGINT)
