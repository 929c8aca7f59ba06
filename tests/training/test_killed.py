"""A training killed at any moment, by SIGKILL, and resumed gives the uninterrupted weights to the bit."""

import signal
import subprocess
import sys
import time

import pytest

from tests.training.toy import recipe_in, write_frames


@pytest.mark.slow
def test_kill_and_resume(tmp_path):
    write_frames(tmp_path, 40, sizes=(1, 2, 3))
    recipe_in(tmp_path, steps=60, batch="[batch]\natoms = 30\npacks = 2")
    words = [sys.executable, "-c", "from omnicalc.cli import main; main()", "train", str(tmp_path / "recipe.toml")]
    words += ["--data", str(tmp_path), "--threads", "1", "--device", "cpu"]
    subprocess.run([*words, "--out", str(tmp_path / "whole")], check=True)
    out = tmp_path / "killed"
    run = subprocess.Popen([*words, "--out", str(out)])
    while not (out / "log.csv").is_file() or len((out / "log.csv").read_text().splitlines()) < 3:
        assert run.poll() is None
        time.sleep(0.02)  # the second validation, at step 40, is just through: its state may be saved or not
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (out / "weights").exists()
    subprocess.run([*words, "--out", str(out), "--resume"], check=True)
    for name in ("weights/model.safetensors", "best/model.safetensors", "log.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
