"""Files wholly there or not at all; folders that do not stay behind empty."""

import os

import pytest

from omnicalc.files import made_folder, not_writable, write_atomically


def test_what_was_there_survives_a_failed_write(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def fails(temporary):
        temporary.write_text("new and half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fails)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"


def test_only_empty_folders_made_here_go_again(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), made_folder(tmp_path / "mine" / "a" / "b"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(tmp_path / "mine") == []
    with made_folder(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()
    with made_folder(tmp_path / "kept" / "a"):
        (tmp_path / "kept" / "file").touch()
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert not_writable(tmp_path / "new" / "below") is None
    assert "is a file" in not_writable(tmp_path / "file")
    assert "file is not a folder" in not_writable(tmp_path / "file" / "below")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to" in not_writable(tmp_path / "new")


def test_a_place_without_a_folder_is_named_as_it_was_given(tmp_path):
    path = tmp_path / "nowhere" / "table.csv"
    with pytest.raises(FileNotFoundError, match="there is no folder '.*nowhere'; make it first") as caught:
        write_atomically(path, lambda temporary: temporary.write_text("x"))
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
