"""The executable `world_model`: one node in its own process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

#: The process is gone this long after SIGINT or SIGTERM, even where a library does not return.
EXIT_S = 1.8


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown transition; return the exit code."""
    from wm_ros.cli.environment import prepare

    prepare()
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from wm_ros.ros.node import WorldModelNode

    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        stop.set()
        # Compiling a model takes seconds and cannot be interrupted; nothing here is worth waiting
        # for longer than this.
        timer = threading.Timer(EXIT_S, os._exit, args=(128 + number,))
        timer.daemon = True
        timer.start()

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    node = WorldModelNode()
    # One thread: four of them lost nine images of ten at five times the load (docs/node.md).
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


def run() -> None:
    """
    Be the process: `main`, then out without the interpreter's own clean-up.

    That clean-up waits for the threads of the libraries, took 3 to 6 s on a busy machine, and no
    timer can cut it short.
    """
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == '__main__':
    run()
