import errno
import os

import pytest

from omnicalc.errors import RunError
from omnicalc.md.files import AppendFile, replace_file


@pytest.fixture
def full_disk(monkeypatch):
    """A disk on which only ``room`` more bytes find place."""
    write, room = os.write, [10**9]

    def limited(descriptor, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, bytes(data)[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    return room


def test_appends_and_cuts_back(tmp_path):
    with AppendFile(tmp_path / "a") as file:
        file.append(b"0123456789")
        file.patch(2, b"xy")
        file.append(b"!")
        file.sync()
    with AppendFile(tmp_path / "a", 5) as file:
        file.append(b"+")
    assert (tmp_path / "a").read_bytes() == b"01xy4+"


def test_a_failed_append_is_taken_back(tmp_path, full_disk):
    with AppendFile(tmp_path / "a") as file:
        file.append(b"whole")
        full_disk[0] = 3
        with pytest.raises(RunError, match="disk is full.*--resume"):
            file.append(b"another")
        assert (tmp_path / "a").read_bytes() == b"whole" and file.size == 5
        full_disk[0] = 100
        file.append(b" again")
    assert (tmp_path / "a").read_bytes() == b"whole again"


def test_a_file_that_is_too_short_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(RunError, match="3 bytes where 5"):
        AppendFile(tmp_path / "a", 5)
    assert (tmp_path / "a").read_bytes() == b"123"
    with pytest.raises(RunError, match="b is missing; put it back"):
        AppendFile(tmp_path / "b", 5)
    assert not (tmp_path / "b").exists()


def test_replacing_is_all_or_nothing(tmp_path):
    replace_file(tmp_path / "a", b"old")
    replace_file(tmp_path / "a", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new"}
    with pytest.raises(RunError, match="cannot write"):
        replace_file(tmp_path / "missing" / "a", b"x")
