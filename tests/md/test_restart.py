import gc
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from omnicalc.errors import RunError
from omnicalc.md.restart import Restart, load, previous, save, settle

from .toy import Harmonic, state_of, thermal


def at(step: int, reference: bool = True) -> Restart:
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    state = state_of(x, thermal(2, 10.0, 300), torch.ones(2, dtype=torch.float64), Harmonic(torch.zeros_like(x)))
    return Restart(replace(state, step=step), step // 2 + 1, 100 * step, x + 1 if reference else None)


@pytest.mark.parametrize("reference", [True, False])
def test_reads_what_was_written(tmp_path, reference):
    path = tmp_path / "restart.npz"
    save(path, at(7, reference))
    found = Restart.read(path)
    assert (found.state.step, found.frames, found.log_bytes) == (7, 4, 700)
    for name, array in at(7).state.to_arrays().items():
        assert np.array_equal(found.state.to_arrays()[name], array, equal_nan=True)
    assert torch.equal(found.reference, at(7).reference) if reference else found.reference is None


def test_the_one_before_is_kept(tmp_path):
    path = tmp_path / "restart.npz"
    for step in (1, 2, 3):
        save(path, at(step))
    assert [Restart.read(p).state.step for p in (path, previous(path))] == [3, 2]
    assert {p.name for p in tmp_path.iterdir()} == {"restart.npz", "restart.previous.npz"}


def test_a_useless_one_gives_way_to_the_one_before(tmp_path):
    path = tmp_path / "restart.npz"
    for step in (1, 2):
        save(path, at(step))
    used = load(path, "cpu", lambda r: r.frames <= 1)
    assert used.state.step == 1 and Restart.read(path).state.step == 2  # nothing is changed before the run goes on
    settle(path, used)
    assert Restart.read(path).state.step == 1 and not previous(path).exists()
    settle(path, used)
    assert Restart.read(path).state.step == 1
    save(path, at(2))
    path.write_bytes(path.read_bytes()[:-9])
    assert load(path, "cpu", lambda r: True).state.step == 1
    assert load(path, "cpu", lambda r: False) is None


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_torn_files_are_noticed(tmp_path, keep):
    path = tmp_path / "restart.npz"
    save(path, at(1))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(RunError, match="cannot be read"):
        Restart.read(path)


def test_every_flipped_byte_of_the_arrays_is_noticed(tmp_path):
    """Positions, velocities and the rest are under a checksum: a damaged file never becomes another run."""
    path = tmp_path / "restart.npz"
    save(path, at(1))
    data = path.read_bytes()
    expected = at(1).state.to_arrays()
    for k in range(0, len(data), 61):
        path.write_bytes(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :])
        try:
            found = Restart.read(path).state.to_arrays()
        except RunError:
            continue
        assert all(
            np.array_equal(found[name], array, equal_nan=True) for name, array in expected.items()
        )  # a byte without meaning


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "restart.npz", format=np.array([object()], dtype=object))
    with pytest.raises(RunError, match="cannot be read"):
        Restart.read(tmp_path / "restart.npz")


class _Knot:
    """Garbage that only a collection finds, and whose end lets another thread run."""

    def __init__(self):
        self.me = self

    def __del__(self):
        for _ in range(50):
            pass


def test_threads_read_without_meeting(tmp_path):
    """Replicas go on at the same moment, each in a thread, from other depths of the stack."""
    path, errors = tmp_path / "restart.npz", []
    save(path, at(5))

    def read(depth: int) -> Restart:
        if depth:
            return read(depth - 1)
        _knots = [_Knot() for _ in range(20)]
        del _knots
        return Restart.read(path)

    def often(depth: int) -> None:
        try:
            for _ in range(40):
                assert read(depth).state.step == 5
        except BaseException as error:
            errors.append(error)

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    try:
        sys.setswitchinterval(1e-6)
        for start in (23, 40, 61):
            gc.set_threshold(start)
            threads = [threading.Thread(target=often, args=(depth,)) for depth in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)
    assert not errors
