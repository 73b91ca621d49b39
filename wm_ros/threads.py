"""Two hands more for a loop: a thread that reads ahead of it, and one that writes behind it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar('T')
_END = object()


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """
    Yield `items` in their order, up to `depth` of them made in advance by another thread.

    What they raise is raised here, in its place. Closing the generator ends the thread.
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as err:
            put((_END, err))

    thread = threading.Thread(target=fill, name='wm_ros_ahead', daemon=True)
    thread.start()
    try:
        while True:
            item, err = waiting.get()
            if err is not None:
                raise err
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


class Behind:
    """
    Calls functions in another thread, in the order in which they were put; a context manager.

    At most `depth` wait. What one raises is raised by the next `put`, or by leaving the context;
    those after it are not called.
    """

    def __init__(self, depth: int) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='wm_ros_behind', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            call = self._waiting.get()
            if call is None:
                return
            if self._error is None:
                try:
                    call()
                except BaseException as err:
                    self._error = err

    def put(self, call: Callable[[], Any]) -> None:
        """Have `call()` done; wait while too many are waiting."""
        if self._error is not None:
            raise self._error
        self._waiting.put(call)

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error
