"""The native CPU kernel: equal on every instruction set and any number of threads, and absent without harm."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from ase import Atoms
from safetensors.torch import load_file
from scipy.interpolate import BSpline

from omnicalc import OmniCalc, load_potential
from omnicalc.errors import InputError, KernelError
from omnicalc.kernel_choice import KernelChoice
from omnicalc.kernels.native import build, library
from omnicalc.models.e2former import attention, from_published
from omnicalc.models.e2former import native as e2former_native
from omnicalc.models.e2former.native import NativeModel
from omnicalc.models.e2former.radial_tables import (
    SLOPE_ERROR,
    nearest_distances,
    pair_functions,
    tables_within,
)
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.conftest import GOLDEN
from tests.contracts.structures import triclinic_waters, waters

BUILT = [name for name in library._supported() if build.library(name).exists()]


@pytest.fixture
def box() -> Atoms:
    return triclinic_waters().repeat((2, 2, 1))  # more than one tile of atoms, the last one not full


def predict(potential, atoms: Atoms, skin: float = 0.5, **options):
    return potential.predict(Systems.from_atoms(atoms), NeighborList(potential.cutoff, skin), head="pbe0-ts", **options)


def native() -> torch.nn.Module:
    return load_potential("ubio-s3", device="cpu", kernel="native")


@pytest.mark.parametrize("name", BUILT)
def test_every_instruction_set_agrees_with_float64(box, name, monkeypatch):
    monkeypatch.setenv(library.INSTRUCTIONS, name)
    potential = native()
    fast = predict(potential, box, stress=True)
    exact = predict(load_potential("ubio-s3", device="cpu", dtype="float64"), box, stress=True)
    assert potential.kernel.describe(potential, torch.tensor(box.numbers)) == f"native ({name})"
    assert (fast.energies - exact.energies).abs().max() < 2e-6
    assert 1e-9 < (fast.forces - exact.forces).abs().max() < 2e-5
    assert (fast.stress - exact.stress).abs().max() < 1e-6
    shifted = box.copy()
    shifted.positions[0, 0] += 1e-3  # the wrong variant: this much is noticed
    assert (predict(potential, shifted).forces - exact.forces).abs().max() > 1e-3


def softmax_potential(scale: float) -> Potential:
    """A published network in float64 without its cap, with scores that many times as large, as training makes them."""
    folder = GOLDEN / "e2former_v2" / "water_qk_l2"
    config = json.loads((folder / "config.json").read_text())
    config["backbone_config"]["max_neighbors"] = None
    last = "query_linear.final_linear.3"
    tensors = {k: scale * v if last in k else v for k, v in load_file(folder / "weights.safetensors").items()}
    model = from_published(config, tensors).requires_grad_(False)
    return Potential(model, [Head(name, {1: 0.0, 8: 0.0}) for name in model.config.heads])


@pytest.mark.parametrize("scale, scores", [(2, 3), (20, 30)])
@pytest.mark.parametrize("name", BUILT)
def test_the_largest_score_is_differentiated(name, scale, scores, monkeypatch):
    """Forces depend on it where the envelope is as small as what softmax adds to the denominator."""
    monkeypatch.setenv(library.INSTRUCTIONS, name)
    monkeypatch.setattr(attention.Attention, "fused", False)  # the reference is plain torch
    pairs = [Atoms("OH", [[0, 0, 0], [0.6 * r, 0.8 * r, 0]]) for r in np.linspace(1.0, 4.4, 35)]
    systems = Systems.from_atoms(pairs)
    plain, seen = attention.attention_weights, []

    def forces(potential):
        return potential.predict(systems, NeighborList(potential.cutoff), head=next(iter(potential.heads))).forces

    def noting(score, *rest):
        seen.append(score.abs().max())
        return plain(score, *rest)

    def with_a_constant_maximum(score, factor, step, mask, kind):
        step = torch.where(mask, step, 0.0).unsqueeze(-1)
        top = score.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1, keepdim=True).detach()
        weight = torch.exp(score - top) * step
        return factor * weight / (weight.sum(1, keepdim=True) + attention.SOFTMAX_EPS)

    monkeypatch.setattr(attention, "attention_weights", noting)
    exact = forces(softmax_potential(scale))
    assert max(seen) > scores
    fast = softmax_potential(scale).float()
    fast.kernel = KernelChoice("native")
    assert (forces(fast) - exact).abs().max() < 1e-4  # of forces up to 5 eV/Å
    monkeypatch.setattr(attention, "attention_weights", with_a_constant_maximum)
    assert (forces(softmax_potential(scale)) - exact).abs().max() > 1e-3


def test_portable_is_always_built():
    assert "portable" in BUILT


def test_threads_do_not_change_a_bit(box):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(predict(native(), box, stress=True))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for key in ("energies", "forces", "stress"):
            assert torch.equal(getattr(found[0], key), getattr(other, key))


def test_skin_and_history_do_not_change_what_is_found(box):
    """The list's order depends on where it was searched, so sums may round differently, and no more."""
    kept = NeighborList(native().cutoff, 1.0)
    potential, systems = native(), Systems.from_atoms(box)
    potential.predict(systems, kept, head="pbe0-ts")
    moved = box.copy()
    moved.rattle(0.05, seed=3)
    again = potential.predict(Systems.from_atoms(moved), kept, head="pbe0-ts")
    assert kept.rebuilds == 1
    assert (again.forces - predict(potential, moved, skin=0.0).forces).abs().max() < 1e-5


def test_reverse_pairs(box):
    systems = Systems.from_atoms(box)
    pairs = NeighborList(4.5, 0.7).pairs_with_skin(systems)
    target = np.repeat(np.arange(len(box)), np.diff(pairs.row))
    assert np.array_equal(pairs.source[pairs.reverse], target)
    assert np.array_equal(pairs.offset[pairs.reverse], -pairs.offset)
    assert np.array_equal(pairs.reverse[pairs.reverse], np.arange(len(target)))


def test_momentum_is_conserved(box):
    assert predict(native(), box).forces.sum(0).abs().max() < 1e-12


@pytest.mark.parametrize("atoms", [Atoms("O", [[0, 0, 0]]), Atoms("OH", [[0, 0, 0], [20, 0, 0]])], ids=["one", "two"])
def test_atoms_without_neighbours(atoms):
    fast, exact = (predict(load_potential("ubio-s3", device="cpu", kernel=k), atoms) for k in ("native", "torch"))
    assert (fast.energies - exact.energies).abs().max() < 1e-5
    assert (fast.forces == 0).all()


def test_energy_alone_is_the_same_energy(box):
    potential = native()
    alone = predict(potential, box, forces=False)
    assert alone.forces is None
    assert torch.equal(alone.energies, predict(potential, box).energies)


def test_structures_of_one_batch_may_ask_for_different_heads(box):
    potential = native()
    small = waters(2, None, seed=1)
    batch = Systems.from_atoms([small, box, small])
    head = torch.tensor([0, 1, 1])
    kernel = potential.kernel.native(potential, batch.numbers)
    prepared = kernel.prepare(batch, head)
    energies, forces, _ = prepared(
        batch.positions, NeighborList(potential.cutoff).pairs_with_skin(batch), forces=True, virial=False
    )
    exact = load_potential("ubio-s3", device="cpu", kernel="torch")
    wanted = exact(batch, NeighborList(potential.cutoff).update(batch), head=head)
    assert (energies + exact.reference_energies(batch, head) - wanted.energies).abs().max() < 2e-5
    assert (forces - wanted.forces).abs().max() < 3e-5


@pytest.mark.parametrize("row", [-1, 9])
def test_a_head_that_there_is_not_is_refused(box, row):
    """Its numbers would be read from beyond the memory of the weights."""
    potential, systems = native(), Systems.from_atoms(box)
    with pytest.raises(ValueError, match="of heads given"):
        potential.kernel.native(potential, systems.numbers).prepare(systems, torch.tensor([row]))


def test_elements_that_are_not_there_change_no_bit(monkeypatch):
    """Tables are made of the elements present, and grow; each pair has the grid that it has in any company."""
    hydrogen = Systems.from_atoms(Atoms("H2", [[0, 0, 0], [0.77, 0.1, 0]]))
    alone, among, grown = (load_potential("ubio-s2", device="cpu", kernel="native") for _ in range(3))
    monkeypatch.setattr(e2former_native, "_RECENT", {})
    made = [among.kernel.native(among, torch.tensor([1, 6, 8]))]
    monkeypatch.setattr(e2former_native, "_RECENT", {})  # what it made helps no other
    made += [grown.kernel.native(grown, torch.tensor(numbers)) for numbers in ([8], [1], [6])]
    assert [kernel.numbers for kernel in made] == [[1, 6, 8], [8], [1, 8], [1, 6, 8]]
    assert made[3].tables[8, 8] is made[1].tables[8, 8] and made[3].tables[1, 8] is made[2].tables[1, 8]
    monkeypatch.setattr(e2former_native, "_RECENT", {})
    first, *others = (p.predict(hydrogen, NeighborList(p.cutoff), head="gfn2-xtb") for p in (alone, among, grown))
    assert alone.kernel.native(alone, hydrogen.numbers).numbers == [1]
    for other in others:
        assert torch.equal(first.energy, other.energy) and torch.equal(first.forces, other.forces)
    # the wrong variant: on one grid for all, that of H2 would be finer with oxygen around
    assert len(made[0].tables[1, 1]) < len(made[0].tables[1, 8])


def test_the_same_weights_loaded_again_make_no_tables_again(monkeypatch):
    monkeypatch.setattr(e2former_native, "_RECENT", {})
    made, kernels = [], []
    make = e2former_native.tables_within
    monkeypatch.setattr(e2former_native, "tables_within", lambda *given: made.append(1) or make(*given))
    for name, numbers in (("ubio-s3", [1, 8]), ("ubio-s3", [8]), ("ubio-s3:fast", [8]), ("ubio-s3", [1, 8])):
        potential = load_potential(name, device="cpu", kernel="native")
        kernels.append(potential.kernel.native(potential, torch.tensor(numbers)))
    assert len(made) == 4 + 1
    assert kernels[3].tables[1, 8] is kernels[0].tables[1, 8] and kernels[1].tables[8, 8] is kernels[0].tables[8, 8]
    for count in (6, 7):
        with torch.no_grad():
            potential.model.blocks[0].attention.value.weight.mul_(1.01)  # any weight
        potential.kernel.native(potential, torch.tensor([8]))
        assert len(made) == count
    assert len(e2former_native._RECENT) == 3  # those of ubio-s3:fast, used longest ago, are gone


def test_copies_and_pickles_work(box):
    potential = native()
    first = predict(potential, box).forces
    assert torch.equal(predict(copy.deepcopy(potential), box).forces, first)
    assert torch.equal(predict(pickle.loads(pickle.dumps(potential)), box).forces, first)
    fresh = load_potential("ubio-s3", device="cpu", kernel="native")
    small = len(pickle.dumps(fresh))  # of the same weights: torch writes addresses into it, which differ in length
    assert torch.equal(predict(fresh, box).forces, first)
    assert len(pickle.dumps(fresh)) == small  # without the tables, which are made again


def test_a_bound_potential_that_was_sent_reads_its_own_arrays(box):
    systems = Systems.from_atoms(box)
    bound = native().bind(systems, head="pbe0-ts")
    expected = bound(systems.positions).forces
    sent = ForkingPickler.dumps(bound)
    del bound
    assert torch.equal(pickle.loads(sent)(systems.positions).forces, expected)


def test_two_python_threads_share_one_potential(box):
    potential, moved = native(), box.copy()
    moved.rattle(0.1, seed=5)
    wanted = [predict(potential, a).forces for a in (box, moved)]
    wrong = []

    def work(k, atoms):
        for _ in range(10):
            if not torch.equal(predict(potential, atoms).forces, wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=item) for item in enumerate((box, moved))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("threads", [2, 1])
def test_a_forked_child_goes_on(box, threads):
    """Its pool has no threads any more: it needs another one, whether or not it asks for as many."""
    potential, before = native(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        wanted = predict(potential, box).forces
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.alarm(20)
            torch.set_num_threads(threads)
            os._exit(0 if torch.equal(predict(potential, box).forces, wanted) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_autocast_changes_nothing(box, kernel):
    """Inside it torch makes 16-bit numbers, which the native loops would read beyond the end."""
    potential = load_potential("ubio-s3", device="cpu", kernel=kernel)
    wanted = predict(potential, box)
    with torch.autocast("cpu"):
        found = predict(potential, box)
    assert torch.equal(found.forces, wanted.forces) and torch.equal(found.energies, wanted.energies)


def test_without_libraries_plain_torch_takes_over_with_one_notice(box, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library", lambda name, source: tmp_path / name)
    box.calc = OmniCalc("ubio-s3", device="cpu")
    with pytest.warns(UserWarning, match="native CPU kernel was not built.*plain torch.*g\\+\\+") as caught:
        box.get_forces()
        box.rattle(0.01)
        box.get_forces()
    assert len(caught) == 1
    with pytest.raises(InputError, match="kernel 'native' cannot run ubio-s3:small@0.3.*not built"):
        predict(native(), box)


def test_a_refusal_is_remembered(box, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library", lambda name, source: tmp_path / name)
    potential, asked = load_potential("ubio-s3", device="cpu"), []
    ask = potential.model.native
    monkeypatch.setattr(potential.model, "native", lambda numbers: (asked.append(numbers), ask(numbers)))
    with pytest.warns(UserWarning, match="not built"):
        first = predict(potential, box).forces
    assert torch.equal(predict(potential, box).forces, first)
    assert len(asked) == 1


def test_libraries_of_other_sources_are_refused(monkeypatch):
    monkeypatch.setattr(library, "source_hash", lambda source: "another")
    library._load.cache_clear()
    with pytest.raises(KernelError, match="other sources"):
        library._load("portable")
    library._load.cache_clear()


@pytest.mark.parametrize("command", [None, "false", "{here}/no_program"])
def test_a_missing_or_broken_compiler_is_said_and_harmless(command, monkeypatch, tmp_path):
    (tmp_path / "no_program").touch(mode=0o755)
    (tmp_path / "no_program").write_bytes(b"\x7fELF")
    if command is None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", command.format(here=tmp_path))
    monkeypatch.setattr(build, "library", lambda name, source: tmp_path / f"{source.stem}-{name}")
    said = []
    assert build.build(said.append) == []
    assert any("compiler" in text or "not built" in text for text in said)
    assert [path.name for path in tmp_path.iterdir()] == ["no_program"]


@pytest.mark.parametrize("command", ["nosuch++", "/nowhere/c++ -O2", '"unbalanced'])
@pytest.mark.parametrize("others", [["g++", "clang++"], []])
def test_a_compiler_that_is_not_there_is_named_and_another_takes_its_place(command, others, monkeypatch, tmp_path):
    for name in others:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", command)
    said = []
    assert build.compiler(said.append) == (["g++"] if others else None)
    assert said == [f"$CXX is '{command}', which is no command here" + "; g++ takes its place" * bool(others)]


def test_a_compiler_with_options_is_taken_as_it_is(monkeypatch, tmp_path):
    (tmp_path / "ccache").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "ccache g++ '-DA=b c'")
    said = []
    assert build.compiler(said.append) == ["ccache", "g++", "-DA=b c"] and not said


@pytest.mark.parametrize(
    ("system", "python_says", "tag"),
    [("Darwin", "macosx-14.5-arm64", "macosx_14_0_arm64"), ("Linux", "linux-aarch64", "linux_aarch64")],
)
def test_a_wheel_has_a_tag_that_pip_takes(system, python_says, tag, monkeypatch):
    """Of macOS 11 and later pip knows no minor versions; those of Python's own name come from where it was built."""
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.mac_ver", lambda: ("14.5", ("", "", ""), "arm64"))
    monkeypatch.setattr("sysconfig.get_platform", lambda: python_says)
    assert build.platform_tag() == tag


def test_a_system_that_lists_no_features_of_its_processor_gets_the_portable_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(library, "_cpu_flags", library._cpu_flags.__wrapped__)
    assert library._supported() == ["portable"]


def test_sources_are_read_in_any_locale():
    code = "from omnicalc.kernels.native.build import POTENTIAL, source_hash; print(source_hash(POTENTIAL))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | plain)
    assert done.stdout.strip() == build.source_hash(build.POTENTIAL), done.stderr


@pytest.mark.parametrize(
    "options, message",
    [({"kernel": "gpu"}, "unknown kernel 'gpu'; use one of: auto, native, native-fp16, native-bf16, torch"),
     ({"kernel": "native", "dtype": "float64"}, "kernel 'native' cannot run .*float32 on a CPU")],
)  # fmt: skip
def test_a_kernel_that_cannot_be_had(box, options, message):
    with pytest.raises(InputError, match=message):
        box.calc = OmniCalc("ubio-s3", device="cpu", **options)
        box.get_forces()


def test_an_instruction_set_that_is_not_here(monkeypatch):
    monkeypatch.setenv(library.INSTRUCTIONS, "avx1024")
    with pytest.raises(InputError, match="OMNICALC_NATIVE=avx1024 given; .* can use: portable"):
        library.instruction_set()


def test_float64_and_training_stay_on_torch(box):
    numbers = torch.tensor(box.numbers)
    exact = load_potential("ubio-s3", device="cpu", dtype="float64")
    assert exact.kernel.native(exact, numbers) is None
    trained = load_potential("ubio-s3", device="cpu").requires_grad_(True)
    assert trained.kernel.native(trained, numbers) is None
    assert "training" in trained.kernel.describe(trained, numbers)


@pytest.mark.parametrize(
    "change, reason",
    [({"forces": "linear"}, "direct force head"), ({"gate": "qkdot", "radial": "per-block"}, "gate 'qkdot'"),
     ({"max_neighbors": 20}, "cap on the number"), ({"long_layers": 1, "radial": "per-block"}, "long-range")],
)  # fmt: skip
def test_networks_it_does_not_know_are_named(change, reason):
    from omnicalc.models import build_model

    model = build_model("e2former", {"heads": ["a"], "elements": [1, 8], "channels": 16, **change})
    with pytest.raises(KernelError, match=reason):
        model.native([1, 8])


def test_weights_that_do_not_fit_their_settings_are_refused():
    settings = np.array([2, 32, 8, 4, 2, 16, 2, 1, 7, 0, 3, 3, *4 * [256]], dtype=np.int32)
    short = np.zeros(100, dtype=np.float32)
    with pytest.raises(ValueError, match="fewer weights than the settings need"):
        library.NativeE2Former(settings, 4.5, short, short)


def build_tables(functions, cutoff, intervals=256, nearest=0.5, degree=5):
    """On one grid, whatever the errors are."""
    return tables_within(functions, cutoff, nearest, np.inf, degree, intervals)


class TestRadialTables:
    def functions(self):
        return pair_functions(load_potential("ubio-s3:small@0.1", device="cpu", dtype="float64").model, [1, 8])

    def test_error_is_measured_and_small(self):
        tables = build_tables(self.functions(), 4.5)
        assert tables.points.shape == (4, 256 + 5, 3 * 32 + 2 * 2 * 8)
        assert 0 < tables.value_error < 5e-6
        assert 0 < tables.slope_error < 5e-5

    def test_error_falls_with_the_sixth_power_of_the_spacing(self):
        coarse, fine = (build_tables(self.functions(), 4.5, n).value_error for n in (256, 512))
        assert 2**5 < coarse / fine < 2**7

    def test_rough_networks_get_a_finer_grid(self):
        """l_max 1 weights that learned from squeezed molecules: the usual grid would cost 1e-4 eV/Å."""
        functions = pair_functions(load_potential("ubio-s3:fast@0.1", device="cpu", dtype="float64").model, [1, 8])
        assert build_tables(functions, 4.5).slope_error > 100 * SLOPE_ERROR
        fine = tables_within(functions, 4.5)
        assert fine.slope_error <= SLOPE_ERROR and fine.intervals > 256
        assert tables_within(self.functions(), 4.5).intervals == 256

    @pytest.mark.parametrize("degree", [3, 5])
    def test_errors_are_those_of_exact_values_and_slopes(self, degree):
        """What finds the exact slopes must be far nearer to them than the splines, on coarse grids, too."""
        tables = build_tables([lambda r: torch.stack([torch.sin(9 * r), torch.cos(r)], 1)], 4.5, 64, 0.7, degree)
        knots = np.arange(-degree, 64 + degree + 1) * (4.5 / 64)
        spline = BSpline(knots, tables.points[0], degree)
        r = (np.arange(3 * 64) + 0.5) * (4.5 / (3 * 64))
        r = r[r > 0.7]
        value, slope = np.stack([np.sin(9 * r), np.cos(r)], 1), np.stack([9 * np.cos(9 * r), -np.sin(r)], 1)
        for error, found, exact in ((tables.value_error, spline(r), value), (tables.slope_error, spline(r, 1), slope)):
            assert error == pytest.approx((np.abs(found - exact).max(0) / np.abs(exact).max(0)).max(), rel=3e-3)

    def test_errors_count_where_atoms_can_be(self):
        """A step at 0.7 Å is an error for two hydrogens and none for two chlorines."""
        assert nearest_distances([1, 17]) == pytest.approx([0.5, 0.665, 0.665, 1.02])

        def step(r):
            return (r.sin() + 0.1 * torch.tanh(50 * (r - 0.7))).unsqueeze(-1)

        near, far = (build_tables([step], 4.5, 128, nearest_distances([z])) for z in (1, 17))
        both = build_tables([step] * 4, 4.5, 128, nearest_distances([1, 17]))
        assert near.slope_error > 10 * far.slope_error and near.value_error > 10 * far.value_error
        assert (both.slope_error, both.value_error) == (near.slope_error, near.value_error)

    def test_functions_are_those_of_the_model(self, box):
        """Tables of the wrong pair order are another potential."""
        potential = load_potential("ubio-s3", device="cpu")
        right = NativeModel(potential.model, [1, 8])
        systems, head = Systems.from_atoms(box), torch.zeros(1, dtype=torch.int64)
        pairs = NeighborList(4.5).pairs_with_skin(systems)
        exact = predict(load_potential("ubio-s3", device="cpu", dtype="float64"), box).forces
        run = {"forces": True, "virial": False}
        assert (right.prepare(systems, head)(systems.positions, pairs, **run)[1] - exact).abs().max() < 2e-5
        wrong = NativeModel(potential.model, [8, 1])
        wrong._row = right._row
        assert (wrong.prepare(systems, head)(systems.positions, pairs, **run)[1] - exact).abs().max() > 1e-2
