import json
import os

import pytest

from omnicalc.analysis.results import ResultFolder
from omnicalc.errors import InputError, RunError


def folder_for(tmp_path, made_by="a command", source="traj.dcd", out=None):
    (tmp_path / source).touch()
    return ResultFolder(out or tmp_path, "rdf.json", made_by, tmp_path / source)


def test_own_files_are_replaced_and_earlier_ones_remembered(tmp_path):
    first = folder_for(tmp_path)
    first.claim(["a.csv", "b.csv"])
    first.write({"x": 1}, {"a.csv": b"1", "b.csv": b"1"})
    second = folder_for(tmp_path)
    second.claim(["a.csv"])
    second.write({"x": 2}, {"a.csv": b"2"})
    record = json.loads((tmp_path / "rdf.json").read_text())
    assert (tmp_path / "a.csv").read_bytes() == b"2" and record["x"] == 2
    assert (tmp_path / "b.csv").read_bytes() == b"1" and record["files_of_earlier_runs"] == ["b.csv"]
    third = folder_for(tmp_path)
    third.claim(["b.csv"])
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "b.csv", "rdf.json", "traj.dcd"], "no temporary files"


def test_files_of_others_are_not_touched(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(InputError, match=r"a\.csv is there already.*--out"):
        folder_for(tmp_path).claim(["a.csv"])
    (tmp_path / "a.csv").unlink()
    for text in ("{}", "not json", '{"made_by": "another command", "source": "x", "files": {}}', "[]"):
        (tmp_path / "rdf.json").write_text(text)
        with pytest.raises(InputError, match=r"rdf\.json was not written by 'a command'"):
            folder_for(tmp_path).claim(["a.csv"])
        assert (tmp_path / "rdf.json").read_text() == text


def test_results_of_another_trajectory_are_kept(tmp_path):
    folder_for(tmp_path).write({}, {"a.csv": b"1"})
    with pytest.raises(InputError, match=r"results of another trajectory \(traj\.dcd\)"):
        folder_for(tmp_path, source="other.dcd").claim(["a.csv"])


def test_a_folder_that_moves_keeps_its_results(tmp_path):
    (tmp_path / "run").mkdir()
    folder_for(tmp_path / "run").write({}, {"a.csv": b"1"})
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = folder_for(tmp_path / "moved")
    moved.claim(["a.csv"])
    moved.write({}, {"a.csv": b"2"})
    assert (tmp_path / "moved" / "a.csv").read_bytes() == b"2"


def test_an_out_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is a file; give another folder"):
        folder_for(tmp_path, out=tmp_path / "out").claim([])


def test_a_full_disk_is_one_message_and_leaves_the_old_file(tmp_path, monkeypatch):
    folder_for(tmp_path).write({}, {"a.csv": b"old"})
    again = folder_for(tmp_path)
    again.claim(["a.csv"])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        again.write({}, {"a.csv": b"new"})
    assert (tmp_path / "a.csv").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "rdf.json", "traj.dcd"]
