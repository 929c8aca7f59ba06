"""A whole step, energies and forces, of the published configuration on a GPU: time, memory, error of the same run.

    python analysis/kernels/step.py [--sizes 999,9999,50001,99999] [--modes float32,tf32,fp16,torch] [--profile 9999]

Weights are random (24 M parameters, --cap 32 for the release's neighbour cap); boxes are cut from examples/water.xyz.
Modes: ``float32``: the kernels; ``tf32``: the same with TF32 in the matrix products (channel maps) alone;
``fp16``, ``bf16``: matrix products in float16 or bfloat16, and what they read and write stored so, the rest in float32;
``torch``: plain torch, the same weights.
Positions move by 0.005 Å from step to step. Errors are against the kernels in float64, which are compared with plain
torch in float64 on the smallest box first; they are printed as largest and as root mean square, beside the root mean
square of the forces.
"""

import time

import click
import numpy as np
import torch
from ase.io import read
from fused_attention import copy_bandwidth

from omnicalc.benchmark import water_box
from omnicalc.kernel_choice import DeviceBinding
from omnicalc.models.e2former import E2Former
from omnicalc.models.e2former.attention import Attention
from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.device import DeviceModel
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems

PUBLISHED = {  # section 7 of the release's architecture: 24 M parameters
    "heads": ("omol25",), "channels": 256, "l_max": 2, "layers": 4, "attention_heads": 128, "query_width": 8,
    "value_multiplicity": 2, "cutoff": 4.5, "basis": "gaussian", "n_basis": 256, "radial": "per-block", "gate": "qk",
    "weights": "softmax", "values": ("first-order",) * 4, "mirror_symmetric": False, "type_embedding": False,
    "system_input": "charge-spin",
}  # fmt: skip
MAPS = {"fp16": torch.float16, "bf16": torch.bfloat16}  # modes by the type of their linear maps; float32 in all others


def potential_of(cap: int | None) -> Potential:
    """The published configuration with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = E2Former(E2FormerConfig(**PUBLISHED, max_neighbors=cap)).requires_grad_(False)
    return Potential(model.float().cuda(), [Head("omol25", {1: 0.0, 8: 0.0})])


def models_of(potential: Potential, modes: list[str]) -> dict[str, DeviceModel]:
    """The kernels' networks by mode, and in float64."""
    models = {mode: DeviceModel(potential.model, [1, 8], MAPS[mode]) for mode in modes if mode in MAPS}
    models |= dict.fromkeys(("float32", "tf32"), DeviceModel(potential.model, [1, 8]))
    models["float64"] = DeviceModel(potential.double().model, [1, 8])
    potential.float()
    return models


class Step:
    """One mode on one box."""

    def __init__(self, potential: Potential, mode: str, atoms, models: dict[str, DeviceModel], record: bool = True):
        self.mode, self.tf32, self.potential = mode, mode == "tf32", potential
        self.systems = Systems.from_atoms(atoms).to("cuda")
        self.list, self.binding = NeighborList(potential.cutoff), None
        if mode != "torch":
            head = torch.zeros(1, dtype=torch.int64, device="cuda")
            self.binding = DeviceBinding(potential, models[mode], self.systems, head, record)

    def __call__(self, positions):
        systems = self.systems.with_positions(positions)
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            if self.binding is None:
                return self.potential(systems, self.list.update(systems), head="omol25").forces
            return self.binding(systems, self.list, forces=True, stress=False).forces
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def torch_forces(potential: Potential, atoms, positions):
    """Forces by plain torch in float64."""
    try:
        Attention.fused = False
        return Step(potential.double(), "torch", atoms, {})(positions)
    finally:
        Attention.fused = None
        potential.float()


def walk(atoms, steps: int) -> list:
    rng = np.random.default_rng(0)
    moved = atoms.positions + np.cumsum(rng.normal(scale=0.005, size=(steps, *atoms.positions.shape)), axis=0)
    return [torch.from_numpy(x).cuda() for x in moved]


def timed(step: Step, positions: list) -> tuple[float, float, object]:
    """Median ms, GiB at the most, and the last forces."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for x in positions[:2]:
        step(x)
    spent = []
    for x in positions[2:]:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        forces = step(x)
        torch.cuda.synchronize()
        spent.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(spent)), torch.cuda.max_memory_allocated() / 2**30, forces


def kernel_times(step: Step, positions: list, steps: int = 3) -> dict[str, tuple[float, float]]:
    """Milliseconds and launches per step of every kernel, slowest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for x in positions[:steps]:
            step(x)
        torch.cuda.synchronize()
    averages = sorted(found.key_averages(), key=lambda a: -a.self_device_time_total)
    return {a.key: (a.self_device_time_total / (1e3 * steps), a.count / steps) for a in averages}


def bytes_moved(edges: int, atoms: int, maps: int) -> dict[str, tuple[float, str]]:
    """Bytes of one launch of each kernel at these sizes, and what limits it: gathers (caches) or streams (memory).

    ``maps``: bytes of a number that a linear map reads or writes. Counted are the reads of an edge's rows once per edge
    and pass, and every other array once; of the norms, whose nine launches differ, the mean.
    """
    c, h, d, f, p, out = 256, 128, 8, 512, 18, 20
    row, value, key, spline, per_head = 4 * c, maps * p * h, maps * d * h, 4 * 8 * h, 4 * h
    coupled = maps * out * c
    features, stored = 9 * row, maps * 9 * c
    rounded = stored if maps < 4 else 0  # the gradient by the features, once more
    gather = {
        "attend": edges * (value + key + spline) + atoms * (key + coupled + 4 * per_head),
        "attend_backward": edges * (value + key + spline + 2 * per_head) + atoms * 2 * (coupled + key),
        "attend_backward_source": edges * (coupled + key + 2 * per_head) + atoms * (key + stored),
        "embed": edges * 12 * row + atoms * features,
        "embed_backward": edges * 12 * row + atoms * features,
    }
    stream = {
        "norm": atoms * (18 * features + 16 * stored) / 9,  # x, total; what was added, and the norm, but for the last
        "norm_backward": atoms * (27 * features + 8 * stored + 9 * rounded) / 9,
        "products": atoms * maps * (36 * f + 6 * f),
        "products_backward": atoms * maps * (72 * f + 6 * f),
        "gated": atoms * maps * c * (3 + 8 + 9),
        "gated_backward": atoms * maps * c * (2 * 3 + 2 * 8 + 9),
        "layernorm_silu": atoms * maps * 4 * f,
        "layernorm_silu_backward": atoms * maps * 6 * f,
    }
    return {k: (x, "gather") for k, x in gather.items()} | {k: (x, "stream") for k, x in stream.items()}


def ceilings() -> dict[str, float]:
    """Bytes per second of a copy in device memory (read and written), and of gathers like those of the attention."""
    import triton
    import triton.language as tl

    @triton.jit
    def gather(v, source, out, K, P: tl.constexpr, H: tl.constexpr):
        i = tl.program_id(0).to(tl.int64)
        h = tl.program_id(1) * 32 + tl.arange(0, 32)
        total = tl.zeros((32,), tl.float32)
        for slot in range(K):
            j = tl.load(source + i * K + slot).to(tl.int64)
            for p in tl.static_range(P):
                total += tl.load(v + (j * P + p) * H + h)
        tl.store(out + i * H + h, total)

    n, k = 10_000, 40
    v, out = torch.randn(n, 18, 128, device="cuda"), torch.empty(n, 128, device="cuda")
    near = torch.arange(n, device="cuda")[:, None] + torch.randint(-200, 200, (n, k), device="cuda")
    source = (near % n).int()
    gathered = triton.testing.do_bench(
        lambda: gather[n, 4](v, source, out, k, P=18, H=128, num_warps=1), return_mode="median"
    )
    return {"stream": copy_bandwidth(), "gather": n * k * 18 * 128 * 4 / (1e-3 * gathered)}


def print_kernels(step: Step, positions: list, rows: int = 26) -> None:
    times, limits = kernel_times(step, positions), ceilings()
    edges = int(step.list.update(step.systems.with_positions(positions[0])).mask.sum())
    moved = bytes_moved(edges, len(positions[0]), MAPS.get(step.mode, torch.float32).itemsize)
    click.echo(
        f"{step.mode}: {sum(ms for ms, _ in times.values()):.2f} ms of kernels per step, {edges} edges; a copy "
        f"{limits['stream'] / 1e12:.2f}, gathers {limits['gather'] / 1e12:.2f} TB/s"
    )
    for name, (ms, calls) in list(times.items())[:rows]:
        said = ""
        if name in moved:
            size, kind = moved[name]
            speed = size * calls / (1e-3 * ms)
            said = f"{size / 1e9:6.2f} GB {speed / 1e12:6.2f} TB/s {speed / limits[kind]:4.0%} of {kind}"
        click.echo(f"  {name[:60]:60} {calls:5.1f} x {1e3 * ms / calls:8.1f} us = {ms:7.3f} ms {said}")


def training_step(fused: bool, waters: int = 8) -> tuple[float, float, list]:
    """ms and GiB of loss, double backward and gradients of all weights on boxes of 192 atoms; the gradients."""
    potential = potential_of(None)
    potential.model.requires_grad_(True)
    box = read("examples/water.xyz")
    systems = Systems.from_atoms([box] * waters).to("cuda")
    found = NeighborList(potential.cutoff).update(systems)
    Attention.fused = fused
    try:
        spent = []
        torch.cuda.reset_peak_memory_stats()
        for _ in range(6):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            result = potential(systems, found, head="omol25", create_graph=True)
            loss = result.forces.square().mean() + result.energy.square().mean() * 1e-4
            gradients = torch.autograd.grad(loss, list(potential.model.parameters()), allow_unused=True)
            torch.cuda.synchronize()
            spent.append(1e3 * (time.perf_counter() - begun))
        return float(np.median(spent[2:])), torch.cuda.max_memory_allocated() / 2**30, gradients
    finally:
        Attention.fused = None


def print_training() -> None:
    fast, fast_memory, mine = training_step(True)
    slow, slow_memory, theirs = training_step(False)
    worst = max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for a, b in zip(mine, theirs, strict=True)
        if a is not None
    )
    click.echo(
        f"training step on 1536 atoms, float32: kernels {fast:.1f} ms, {fast_memory:.1f} GiB; torch {slow:.1f} ms, "
        f"{slow_memory:.1f} GiB; {slow / fast:.1f} times; gradients differ by {worst:.1e} of the largest entry at most"
    )


@click.command(help=__doc__.split("\n")[0])
@click.option("--sizes", default="999,9999,50001,99999", show_default=True)
@click.option("--modes", default="float32,tf32,fp16,bf16,torch", show_default=True)
@click.option("--cap", type=int, help="Neighbours per atom at most, as in the release: 32. [default: all]")
@click.option("--steps", default=12, show_default=True)
@click.option("--torch-up-to", default=10_000, show_default=True, help="Largest box for plain torch.")
@click.option("--check-up-to", default=50_001, show_default=True, help="Largest box whose error is found.")
@click.option("--profile", "profile_at", type=int, help="Size to print the times of kernels for.")
@click.option("--train", is_flag=True, help="Also time a training step against plain torch.")
def main(sizes, modes, cap, steps, torch_up_to, check_up_to, profile_at, train):
    if not torch.cuda.is_available():
        raise click.ClickException("no CUDA device was found")
    potential, box = potential_of(cap), read("examples/water.xyz")
    modes = modes.split(",")
    models = models_of(potential, modes)
    millions = sum(p.numel() for p in potential.model.parameters()) / 1e6
    click.echo(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {millions:.1f} M parameters, cap {cap}")
    sizes, first = [int(s) for s in sizes.split(",")], True
    click.echo("  atoms mode         ms/step  us/atom  ns/day     GiB   error max, rms (rms force), eV/Å")
    for n in sizes:
        atoms = water_box(box, n)
        positions, exact = walk(atoms, steps), None
        if n <= check_up_to:
            exact = Step(potential, "float64", atoms, models, record=False)(positions[-1])
        if first:
            off = float((exact - torch_forces(potential, atoms, positions[-1])).abs().max())
            click.echo(f"float64 at {n}: kernels against torch {off:.1e}")
            first = False
        for mode in modes:
            if mode == "torch" and n > torch_up_to:
                continue
            try:
                step = Step(potential, mode, atoms, models)
                ms, memory, forces = timed(step, positions)
            except torch.OutOfMemoryError as error:
                click.echo(f"{n:7} {mode:10} out of memory: {str(error)[:90]}")
                continue
            said = ""
            if exact is not None:
                off, rms = forces - exact, float(exact.square().mean().sqrt())
                said = f"{float(off.abs().max()):.1e} {float(off.square().mean().sqrt()):.1e} ({rms:.1e})"
            click.echo(f"{n:7} {mode:10} {ms:9.2f} {1e3 * ms / n:8.2f} {0.5 * 86.4 / ms:7.3f} {memory:7.2f}   {said}")
            if n == profile_at and mode != "torch":
                print_kernels(step, positions)
            del step
    if train:
        print_training()


if __name__ == "__main__":
    main()
