"""Compiled functions, and work divided between threads."""

import threading

import numba
import numpy as np
import pytest
import torch

from nextmarker.nn import cpu


def test_compiles_without_a_folder_to_keep_the_result(monkeypatch):
    def without_folder(function, *, cache=False, **options):
        if cache:
            msg = "cannot cache function: no locator available"
            raise RuntimeError(msg)
        return numba.njit(function, **options)

    monkeypatch.setattr(cpu, "numba", type("numba", (), {"njit": staticmethod(without_folder)}))
    double = cpu.compiled(lambda values: values * 2)
    np.testing.assert_array_equal(double(np.ones(3)), [2, 2, 2])


@pytest.mark.parametrize("count", [0, 2, 7])
def test_each_part_of_the_work_is_done_once(count):
    before, done = torch.get_num_threads(), np.zeros(count, int)

    def work(first, last):
        done[first:last] += 1

    try:
        torch.set_num_threads(3)
        cpu.in_threads(count, work)
    finally:
        torch.set_num_threads(before)
    assert (done == 1).all()


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        cpu.in_threads(1, lambda first, last: (last - first) / 0)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_tasks_run_next_to_each_other_each_in_one_thread(three_threads):
    meeting = threading.Barrier(3, timeout=60)

    def task(number):
        meeting.wait()  # passes only if all three are there
        return number, torch.get_num_threads()

    with cpu.tasks_in_threads(torch.device("cpu")) as in_threads:
        assert list(in_threads(task, range(3))) == [(0, 1), (1, 1), (2, 1)]
    assert torch.get_num_threads() == 3


def test_threads_are_as_before_after_an_error(three_threads):
    with pytest.raises(ZeroDivisionError), cpu.tasks_in_threads(torch.device("cpu")) as in_threads:
        list(in_threads(lambda number: 1 / number, [1, 0, 2]))
    assert torch.get_num_threads() == 3


def test_on_another_device_tasks_follow_each_other(three_threads):
    with cpu.tasks_in_threads(torch.device("meta")) as in_threads:
        assert in_threads is map
        assert torch.get_num_threads() == 3
