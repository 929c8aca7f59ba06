"""Several processes that share the structures of each step, against one."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from omnicalc.errors import InputError
from omnicalc.training import processes, run
from omnicalc.training.companions import companions
from omnicalc.training.objectives import StepInfo
from omnicalc.training.packing import Pack, Size, share
from omnicalc.training.recipe import read_recipe
from tests.training.toy import recipe_in, trainer, write_frames


def words(folder, out, *more, launcher=None):
    start = [*(launcher or [sys.executable]), "-m", "omnicalc", "train", str(folder / "recipe.toml")]
    return [*start, "--data", str(folder), "--out", str(folder / out), "--threads", "1", "--device", "cpu", *more]


def train(*args, launcher=None, **settings):
    return subprocess.run(words(*args, launcher=launcher), capture_output=True, text=True, **settings)


def train_here(folder, out):
    found = read_recipe(folder / "recipe.toml")
    silent = {"report": lambda line: None, "progress": lambda *_: None}
    assert run.train(found, folder, folder / out, resume=False, steps=None, device="cpu", **silent) == 0


def weights(folder):
    return load_file(folder / "weights" / "model.safetensors")


def furthest(one, two):
    return max(float((t - two[name]).abs().max()) for name, t in one.items())


def packs_of(*edges):
    found = []
    for k, each in enumerate(edges):
        found.append(Pack())
        for n, e in enumerate(each):
            found[-1].add((k, n, e), Size(1, e, 1))
    return found


def size_of(member):
    return Size(1, member[2], 1)


def test_every_structure_of_a_step_has_one_process():
    packs = packs_of([50, 30, 20, 10], [40, 40, 5])
    for count in (3, 4, 9):
        shares = [share(packs, size_of, rank, count) for rank in range(count)]
        numbers = [k for mine in shares for k in mine]
        assert len(numbers) == len(set(numbers))  # seeds of noise follow from them
        members = [m for mine in shares for p in mine.values() for m in p.members]
        assert sorted(members) == sorted(m for p in packs for m in p.members)
        loads = [sum(p.edges for p in mine.values()) for mine in shares]
        assert max(loads) <= max(50, sum(loads) / count + 20)
        assert count < 9 or loads.count(0) == 2  # seven structures
    for rank in range(2):  # where packs come out even they stay whole
        assert share(packs, size_of, rank, 2) == {rank: packs[rank]}


@pytest.mark.parametrize("loss", ["atoml2mae", "huber"])
def test_gradients_of_the_shares_of_a_pack_add_up(tmp_path, loss):
    write_frames(tmp_path, 24, sizes=(1, 2, 3))
    work = trainer(tmp_path, batch="[batch]\natoms = 40", data=f'[objective]\nloss = "{loss}"')
    stage, _ = work.recipe.stage_at(0)
    packs = work.typical_packs(stage, 1)
    info = StepInfo(stage, 1.0, work.totals_of(packs), None, 0)
    whole, values = work.plain_gradients({0: packs[0]}, info)
    parts = [work.plain_gradients(share(packs, work._size, rank, 3), info) for rank in range(3)]
    size = max(float(g.abs().max()) for g in whole)
    for k, gradient in enumerate(whole):
        torch.testing.assert_close(sum(p[0][k] for p in parts), gradient, rtol=1e-4, atol=1e-5 * size)
    torch.testing.assert_close(sum(p[1] for p in parts), values, rtol=1e-5, atol=1e-6)
    # the wrong variant: one share is lost
    assert any(float((parts[0][0][k] + parts[1][0][k] - g).abs().max()) > 0.01 * size for k, g in enumerate(whole))


def test_two_processes_of_the_command_train_as_one(tmp_path):
    write_frames(tmp_path, 24, sizes=(1, 2, 3))
    recipe_in(tmp_path, steps=12, every=6, batch="[batch]\natoms = 40")
    train_here(tmp_path, "one")
    two = train(tmp_path, "two", "--processes", "2")
    assert two.returncode == 0, two.stderr
    assert "scaling efficiency of 2 processes" in two.stdout and two.stdout.count("weights:") == 1
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-4
    # the wrong variant: other packs
    recipe_in(tmp_path, steps=12, every=6, batch="[batch]\natoms = 20")
    train_here(tmp_path, "half")
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "half")) > 1e-3


def test_steps_too_small_to_be_shared_are_refused(tmp_path, monkeypatch):
    write_frames(tmp_path, 24, sizes=(1,))
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"3\.0 structures cannot be shared out among 4 processes; start fewer"):
        trainer(tmp_path, batch="[batch]\nstructures = 3")
    trainer(tmp_path, batch="[batch]\nstructures = 1\npacks = 4")


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    assert processes.Processes("cuda").device == torch.device("cuda") and not taken  # alone: as asked
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank, local in enumerate((0, 1, 0, 1)):  # two machines
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(local))
        assert processes.Processes("cuda").device == torch.device("cuda", local) == taken[-1]
    assert processes.Processes("cpu").device == torch.device("cpu")
    with pytest.raises(InputError, match="cannot share 'cuda:1'; use --device cuda"):
        processes.Processes("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 3 on this machine needs its own GPU, and there are 2"):
        processes.Processes("cuda")


_DIES = """
import os, sys, time
from omnicalc.training.companions import companions
from omnicalc.training.processes import Processes
import torch

def work(report, progress):
    mine = Processes()
    mine.wait()
    if mine.rank == 1:
        os.kill(os.getpid(), 9)
    mine.wait()
    return 0

if __name__ == "__main__":
    with companions(2, work):
        work(print, print)
"""


def test_a_process_that_dies_ends_the_others(tmp_path):
    (tmp_path / "dies.py").write_text(_DIES)
    found = subprocess.run([sys.executable, str(tmp_path / "dies.py")], capture_output=True, text=True, timeout=120)
    assert found.returncode == 1
    assert "RunError: one of the 2 processes ended (exit code -9)" in found.stderr


def test_more_processes_than_cores_are_refused():
    with pytest.raises(InputError, match="--processes 5000: no more than the cores"), companions(5000, print):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("where", ["command", "torchrun"])
def test_packs_that_come_out_even_give_the_same_bits(tmp_path, where):
    write_frames(tmp_path, 40, sizes=(1, 2, 3))
    recipe_in(tmp_path, steps=40, batch="[batch]\natoms = 30\npacks = 2")
    assert train(tmp_path, "one").returncode == 0
    if where == "command":
        assert train(tmp_path, "two", "--processes", "2").returncode == 0
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
        assert train(tmp_path, "two", launcher=launcher).returncode == 0
        refused = train(tmp_path, "three", "--processes", "2", env={**os.environ, "WORLD_SIZE": "2"})
        assert refused.returncode == 2 and "torchrun has not started" in refused.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        # two numbers have one sum, in whatever order they are added: the same to the bit
        assert tensor.equal(two[name]), name
    logs = [(tmp_path / n / "log.csv").read_text().splitlines() for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) > 2


@pytest.mark.slow
def test_several_processes_stop_together_and_go_on(tmp_path):
    write_frames(tmp_path, 40, sizes=(1, 2, 3))
    recipe_in(tmp_path, steps=60, batch="[batch]\natoms = 30\npacks = 2")
    assert train(tmp_path, "whole", "--processes", "2").returncode == 0
    cut = subprocess.Popen(words(tmp_path, "cut", "--processes", "2"), stdout=subprocess.PIPE, text=True)
    while not cut.stdout.readline().startswith("step 10/"):
        assert cut.poll() is None
    cut.send_signal(signal.SIGTERM)
    assert cut.wait(60) == 128 + signal.SIGTERM and not (tmp_path / "cut" / "weights").exists()
    assert train(tmp_path, "cut", "--processes", "2", "--resume").returncode == 0
    for name in ("weights/model.safetensors", "log.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
