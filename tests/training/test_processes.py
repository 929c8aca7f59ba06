"""Two processes under torchrun against one on the same packs."""

import subprocess
import sys

import pytest
from safetensors.torch import load_file

from tests.training.toy import recipe_in, write_frames

_RUN = """
import sys
from pathlib import Path
import torch
from omnicalc.training.recipe import read_recipe
from omnicalc.training.run import train
torch.set_num_threads(1)
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
quiet = lambda *_: None
sys.exit(train(read_recipe(folder / "recipe.toml"), folder, out, resume=False, steps=None, device="cpu",
               report=quiet, progress=quiet))
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    write_frames(tmp_path, 40, sizes=(1, 2, 3))
    recipe_in(tmp_path, steps=40, batch="[batch]\natoms = 30\npacks = 2")
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    command = [sys.executable, str(script), str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "one")], check=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    subprocess.run([*torchrun, *command[1:], str(tmp_path / "two")], check=True)
    one, two = (load_file(tmp_path / n / "weights" / "model.safetensors") for n in ("one", "two"))
    for name, tensor in one.items():
        # two numbers have one sum, in whatever order they are added: the same to the bit
        assert tensor.equal(two[name]), name
    logs = [(tmp_path / n / "log.csv").read_text().splitlines() for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) > 2
    # the wrong variant: half of the packs are other weights
    recipe_in(tmp_path, steps=40, batch="[batch]\natoms = 30\npacks = 1")
    subprocess.run([*command, str(tmp_path / "half")], check=True)
    half = load_file(tmp_path / "half" / "weights" / "model.safetensors")
    assert any(not tensor.equal(half[name]) for name, tensor in one.items())
