"""The executable `world_model`: one node in its own process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence

#: The process is gone this long after SIGINT or SIGTERM, even where a library does not return.
EXIT_S = 1.8
_M_ARENA_MAX = -8  # of glibc's malloc.h


def run(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown transition; return the exit code."""
    from wm_ros.cli.environment import prepare

    _one_heap()
    prepare()
    stop = _stop_on_signals()
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from wm_ros.ros.node import WorldModelNode

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = WorldModelNode()
    # One thread: several cost more and lose images (docs/node.md).
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not stop.is_set() and not node.finalized:
            executor.spin_once(timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown(timeout_sec=0.2)
        rclpy.try_shutdown()
    return 0


def _one_heap() -> None:
    """
    Have glibc keep one heap for all threads instead of up to eight a core.

    About 30 threads live here, most of them the middleware's and mostly asleep, and what each
    heap holds back adds up to 20 MB. To be called before the first thread starts.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except AttributeError:
        pass  # another C library, with heaps of its own


def _stop_on_signals() -> threading.Event:
    """
    Return an event that SIGINT and SIGTERM set.

    A thread waits for them, because Python's handlers run in the main thread alone, which may be
    inside a library for seconds (compiling a model). From then on an alarm that the kernel serves
    ends the process in time, whatever hangs.
    """
    stop = threading.Event()
    wanted = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Threads inherit the mask: before any library starts one.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)

    def wait() -> None:
        signal.sigwait(wanted)
        signal.setitimer(signal.ITIMER_REAL, EXIT_S)
        stop.set()

    threading.Thread(target=wait, name='wm_ros signals', daemon=True).start()
    return stop


def main(args: Sequence[str] | None = None) -> None:
    """Run the node and end the process."""
    code = run(args)
    sys.stdout.flush()
    sys.stderr.flush()
    # All of ours is closed; destructors of libraries at interpreter exit may take their time.
    os._exit(code)


if __name__ == '__main__':
    main()
