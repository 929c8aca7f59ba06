import threading
import time

import pytest

from omnicalc.analysis.in_order import InOrder


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_results_come_in_the_order_in_which_work_was_given(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    taken, workers = [], set()
    work = InOrder(taken.append)

    def piece(k):
        workers.add(threading.get_ident())
        time.sleep(0.002 * (k % 3 == 0))  # the first of three is the slowest
        return k

    for k in range(60):
        work.give(lambda k=k: piece(k))
    work.finish()
    assert taken == list(range(60))
    assert (len(workers) > 1) == (threads != "1") and len(workers) <= int(threads)


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    here, gate = threading.get_ident(), threading.Event()
    done_here = []

    def piece():
        if threading.get_ident() == here:
            done_here.append(1)
        else:
            gate.wait(10)

    work = InOrder(lambda nothing: None)
    for _ in range(20):
        work.give(piece)
    assert len(done_here) == 16, "four wait for the other thread, the rest is done here"
    gate.set()
    work.finish()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_error_of_the_work_is_raised_here(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    work = InOrder(lambda nothing: None)
    with pytest.raises(ZeroDivisionError):
        for _ in range(50):
            work.give(lambda: 1 / 0)
            time.sleep(0.001)
        work.finish()
