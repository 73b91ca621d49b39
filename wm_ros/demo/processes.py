"""The processes of a demo: each with its own log, ended in order, never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from wm_ros.cli.environment import child_environment, profile_variable
from wm_ros.share import share_path


class ProcessError(RuntimeError):
    """A process that ended when it should not have; the message ends with its last lines."""


class Process:
    """
    A Python module of this package as a process of its own, its output in a file.

    A context manager: on the way out the process gets SIGINT, and SIGKILL where that does not help
    within `end_s`. One whose log has a line with `fatal` in it has failed, though it may live on.
    `profile` is the file in params/ that Fast DDS reads.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path,
                 domain: int, end_s: float = 10.0, fatal: str | None = None,
                 profile: str = 'fastdds_large_messages.xml') -> None:
        self.name = name
        self._fatal = fatal
        self._log = log
        self._end_s = end_s
        environment = child_environment(ROS_DOMAIN_ID=str(domain), PYTHONUNBUFFERED='1',
                                        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
        if environment.get('ROS_DISTRO') in ('humble', 'iron'):     # which have another name for it
            environment['ROS_LOCALHOST_ONLY'] = '1'
        # Camera pictures overflow the shared memory of Fast DDS as it comes.
        environment[profile_variable()] = str(share_path('params', profile))
        with log.open('wb') as out:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *arguments], stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env=environment)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.end()

    @property
    def code(self) -> int | None:
        """The exit code, None while the process runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise ProcessError where the process has ended, or has said that it failed."""
        if self.code is not None:
            raise ProcessError(f'{self.name} ended with code {self.code}: {self.last_lines()}')
        if self._fatal and self._fatal in self._log.read_text(errors='replace'):
            raise ProcessError(f'{self.name} failed: {self.last_lines()}')

    def wait(self, timeout_s: float, beside: Sequence[Process] = ()) -> None:
        """
        Wait until the process ends well; raise ProcessError otherwise.

        The processes `beside` it have to be alive meanwhile.
        """
        end = time.monotonic() + timeout_s
        while self.code is None:
            for other in beside:
                other.check()
            if time.monotonic() > end:
                raise ProcessError(f'{self.name} still ran after {timeout_s:.0f} s: '
                                   f'{self.last_lines()}')
            time.sleep(0.1)
        if self.code:
            raise ProcessError(f'{self.name} ended with code {self.code}: {self.last_lines()}')

    def end(self) -> float:
        """End the process with SIGINT; return the seconds that it took."""
        start = time.monotonic()
        if self.code is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(self._end_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return time.monotonic() - start

    def last_lines(self, count: int = 4) -> str:
        """Return the last lines that the process wrote."""
        try:
            lines = self._log.read_text(errors='replace').strip().splitlines()
        except OSError as err:
            return str(err)
        return ' | '.join(lines[-count:]) or 'it said nothing'


def peak_memory_mb(pid: int) -> float | None:
    """Return the peak resident memory of a process in MB, None where /proc does not tell."""
    try:
        for line in Path(f'/proc/{pid}/status').read_text().splitlines():
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) * 1024 / 1e6      # the kernel's kB are 1024 bytes
    except OSError:
        pass
    return None


def waited_s(pid: int) -> float:
    """
    Return how long a process has waited for a processor: its thread that waited longest, seconds.

    0 where the kernel does not tell (/proc/PID/task/*/schedstat, second number).
    """
    longest = 0.0
    for task in Path(f'/proc/{pid}/task').glob('*/schedstat'):
        try:
            longest = max(longest, int(task.read_text().split()[1]) / 1e9)
        except (OSError, IndexError):
            pass    # a thread that has ended
    return longest
