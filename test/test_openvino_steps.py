"""Branches that run beside each other: all of them, errors not lost, nothing left under way."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wm_ros.runtime.openvino_steps import run_beside


class Branch:
    """Does something and notes that it did."""

    def __init__(self, done, action=lambda: None):
        self.done, self.action = done, action

    def run(self, given):
        self.action()
        self.done.append(given)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_each_runs_once_on_what_is_given(pool, threads):
    done = []
    run_beside([Branch(done) for _ in range(5)], 'inputs', pool, threads)
    assert done == ['inputs'] * 5


def test_an_error_of_any_is_not_lost(pool):
    def fail():
        raise RuntimeError('out of memory')

    for at in range(3):
        branches = [Branch([], fail if i == at else (lambda: None)) for i in range(3)]
        with pytest.raises(RuntimeError, match='out of memory'):
            run_beside(branches, {}, pool, 2)


def test_after_an_error_nothing_is_under_way_any_more(pool):
    both, done = threading.Barrier(2), []

    def act():
        both.wait(10)
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError('out of memory')
        time.sleep(0.05)

    with pytest.raises(RuntimeError, match='out of memory'):
        run_beside([Branch(done, act), Branch(done, act)], {}, pool, 2)
    assert len(done) == 1
