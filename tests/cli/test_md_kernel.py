"""Which kernel a run uses, what it records, and what a resumed run does with it."""

import json

import pytest
from ase.io import read, write
from click.testing import CliRunner

from omnicalc.cli import group
from omnicalc.errors import OmniCalcError

SHORT = ["--steps", "4", "--interval", "2", "--restart-interval", "2", "--seed", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def water(tmp_path, monkeypatch):
    box = read("examples/water.xyz")
    monkeypatch.chdir(tmp_path)
    write("water.xyz", box)
    for name in ("draw", "draw_cell"):
        monkeypatch.setattr(f"omnicalc.md.loop.plots.{name}", lambda *arguments, **keywords: None)
    return tmp_path


def md(*arguments) -> str:
    result = CliRunner().invoke(group, ["md", "water.xyz", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def recorded(folder: str) -> str:
    with open(f"{folder}/run.json") as file:
        return json.load(file)["model"]["kernel"]


def test_kernel_is_printed_and_recorded():
    assert "kernel     native (" in md(*SHORT, "--out", "fast")
    assert "kernel     torch (as asked)" in md(*SHORT, "--out", "plain", "--kernel", "torch")
    assert recorded("fast").startswith("native (")
    assert recorded("plain") == "torch (as asked)"


@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_resumed_run_stays_on_its_kernel_and_repeats_the_bytes(water, kernel):
    md(*SHORT, "--steps", "8", "--out", "whole", "--kernel", kernel)
    md(*SHORT, "--out", "parts", "--kernel", kernel)
    assert "another kernel" not in md("--resume", "--steps", "8", "--out", "parts", "--threads", "1")
    for name in ("traj.dcd", "log.csv"):
        assert (water / "whole" / name).read_bytes() == (water / "parts" / name).read_bytes()


def test_another_kernel_is_said_on_resume():
    md(*SHORT, "--out", "run", "--kernel", "torch")
    told = md("--resume", "--steps", "8", "--out", "run", "--kernel", "native", "--threads", "1")
    assert "forces by another kernel than before (torch (as asked))" in told


@pytest.mark.parametrize(
    "options, message",
    [(["--kernel", "gpu"], "unknown kernel 'gpu'; use one of: auto, native, native-fp16, native-bf16, torch"),
     (["--kernel", "native", "--dtype", "float64"], "kernels are for float32 on a CPU or a CUDA device")],
)  # fmt: skip
def test_a_kernel_that_cannot_be_had_leaves_no_trace(water, options, message):
    with pytest.raises(OmniCalcError, match=message):
        CliRunner().invoke(group, ["md", "water.xyz", *SHORT, *options], catch_exceptions=False, standalone_mode=False)
    assert [path.name for path in water.iterdir()] == ["water.xyz"]
