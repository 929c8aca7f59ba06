"""Published AllScAIP checkpoints by the command line: the container, its wrappers, scale and references, refusals."""

import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from safetensors.torch import load_file

from omnicalc import AllScAIPCalculator, OmniCalc
from omnicalc.errors import InputError, WeightsError
from omnicalc.gradients import geometry
from omnicalc.models import build_model
from omnicalc.neighbors import neighbors
from omnicalc.published.allscaip import import_allscaip
from omnicalc.published.fairchem import read_checkpoint
from omnicalc.published.import_file import import_file
from omnicalc.registry import load_potential
from omnicalc.systems import Systems, cat
from tests.command import omnicalc

CASES = Path(__file__).parents[1] / "golden" / "cases" / "allscaip"
CONSERVATIVE, DIRECT = CASES / "ethanol_conservative_enc", CASES / "water_direct_enc"
REFERENCE = {"H": -16.001316695716987, "C": -1037.0951083942327, "O": -2047.6980007878883}
SCALE = 1.433569


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNICALC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def parts(case: Path, **changes) -> dict:
    """A checkpoint's content as the release writes it: averaged tensors behind prefixes, a wrapped gradient head."""
    config = json.loads((case / "config.json").read_text())
    tensors = load_file(case / "weights.safetensors")
    tensors = {k.replace("energyandforcehead.", "energyandforcehead.head."): v for k, v in tensors.items()}
    settings = {"model": "fairchem.core.models.allscaip.AllScAIP.AllScAIPBackbone", "use_pbc": True, **config["model"]}
    normalizer = {"_target_": "Normalizer", "mean": 0.0, "rmsd": SCALE}
    made = {
        "model_config": {"_target_": "HydraModel", "backbone": settings, "heads": {}},
        "model_state_dict": {k: torch.zeros_like(v) for k, v in tensors.items()},
        "ema_state_dict": {"n_averaged": torch.tensor(7), **{f"module.module.{k}": v for k, v in tensors.items()}},
        "tasks_config": [{"name": name, "normalizer": normalizer} for name in ("omol_energy", "omol_forces")],
    }
    return {**made, **changes}


def write(path: Path, content) -> Path:
    torch.save(content, path)
    return path


def structure(case: Path) -> Atoms:
    given = np.load(case / "input.npz")
    info = {"charge": int(given["charge"][0]), "spin": int(given["spin"][0])}
    return Atoms(given["atomic_numbers"], given["positions_as_fed"], info=info)


def physical(case: Path) -> tuple[float, np.ndarray]:
    """Energy and forces of a golden case, eV and eV/Å."""
    wanted, atoms = np.load(case / "output.npz"), structure(case)
    references = sum(REFERENCE[s] for s in atoms.symbols)
    return float(wanted["energy_f64"][0]) * SCALE + references, wanted["forces_f64"] * SCALE


@pytest.mark.parametrize("case", [CONSERVATIVE, DIRECT], ids=lambda case: case.name)
def test_energies_and_forces(tmp_path, case):
    said = omnicalc("models", "import", write(tmp_path / "md.pt", parts(case)), "--as", "allscaip:md")
    assert "omol: 83 elements" in said and "ωB97M-V" in said
    card = omnicalc("models", "allscaip:md")
    assert "charges   -100 to +100" in card and "spins     1 to 100" in card
    atoms, (energy, forces) = structure(case), physical(case)
    atoms.calc = AllScAIPCalculator("allscaip:md", dtype="float64", device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    assert np.abs(atoms.get_forces() - forces).max() < 1e-9
    assert atoms.calc.potential.conservative is (case is CONSERVATIVE)


class Checkpoint:
    """An object of a class that is not installed where it is read."""


def test_objects_of_classes_that_are_not_here(tmp_path, monkeypatch):
    """As fairchem writes it, with omegaconf's tables in it: read without those packages, and without running them."""
    module = types.ModuleType("fairchem_elsewhere")
    monkeypatch.setitem(sys.modules, "fairchem_elsewhere", module)
    wrapper = type("DictConfig", (), {"__module__": "fairchem_elsewhere"})
    holder = type("MLIPInferenceCheckpoint", (), {"__module__": "fairchem_elsewhere"})
    module.DictConfig, module.MLIPInferenceCheckpoint = wrapper, holder

    def wrapped(value):
        if not isinstance(value, dict):
            return value
        made = wrapper()
        made.__dict__.update(_metadata=None, _content={k: wrapped(v) for k, v in value.items()})
        return made

    content, checkpoint = parts(CONSERVATIVE), holder()
    content["model_config"] = wrapped(content["model_config"])
    content["tasks_config"] = [wrapped(task) for task in content["tasks_config"]]
    checkpoint.__dict__.update(content)
    file = write(tmp_path / "md.pt", checkpoint)
    monkeypatch.delitem(sys.modules, "fairchem_elsewhere")
    with pytest.raises(ModuleNotFoundError):
        torch.load(file, weights_only=False)
    omnicalc("models", "import", file, "--as", "allscaip:md")
    atoms = structure(CONSERVATIVE)
    atoms.calc = OmniCalc("allscaip:md", dtype="float64", device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(physical(CONSERVATIVE)[0], abs=1e-9)


class Touch:
    """Unpickling this makes a file."""

    def __reduce__(self):
        import os

        return os.system, ("touch HACKED",)


def test_code_in_a_pickle_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "md.pt", parts(CONSERVATIVE, extra=Touch()))
    omnicalc("models", "import", file, "--as", "allscaip:md")
    assert not (tmp_path / "HACKED").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "HACKED").exists()


def test_a_program_in_the_archive_is_refused(tmp_path):
    """torch.load hands an archive that looks like TorchScript to the loader of programs, past the stand-ins."""
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), path)
    with pytest.raises(WeightsError, match="TorchScript program, and loading that could run code"):
        read_checkpoint(path)


def test_lone_atoms_come_from_their_table(tmp_path):
    omnicalc("models", "import", write(tmp_path / "md.pt", parts(DIRECT)), "--as", "allscaip:md")
    calc = OmniCalc("allscaip:md", device="cpu")
    for symbol, charge, spin, energy in (("H", 0, 2, -13.44558), ("Li", 1, 1, -197.98589)):
        atom = Atoms(symbol, info={"charge": charge, "spin": spin}, calculator=calc)
        assert atom.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        assert np.abs(atom.get_forces()).max() == 0
    with pytest.raises(InputError, match="lone H atom of charge -1: .* knows it with 0"):
        Atoms("H", info={"charge": -1}, calculator=calc).get_potential_energy()


def test_lone_atoms_of_other_heads_come_from_the_network(tmp_path):
    """After fine-tuning a head is of another level of theory, and the table's numbers are above another's zero."""
    omnicalc("models", "import", write(tmp_path / "md.pt", parts(DIRECT)), "--as", "allscaip:md")
    old = load_potential("allscaip:md", device="cpu").model
    config = {**old.config.to_dict(), "heads": ["mine", "omol"]}
    one = Systems.from_atoms(Atoms("H", info={"charge": 0, "spin": 2}))
    lone = cat([one, one, one])

    def energies(settings: dict) -> list[float]:
        model = build_model("allscaip", settings).eval()
        mine = {name.replace("_heads.omol.", "_heads.mine."): tensor for name, tensor in old.state_dict().items()}
        model.load_state_dict({**old.state_dict(), **mine})
        made = geometry(model, lone, neighbors(lone, model.cutoff), torch.float32, False)
        return model(made.graph(torch.tensor([0, 1, 0]))).energies.tolist()

    mine, omol, again = energies(config)
    assert mine == again and omol == pytest.approx(-13.44558 - REFERENCE["H"], abs=1e-6)
    network = energies({**config, "isolated": None})
    assert network == pytest.approx([mine] * 3) and abs(mine - omol) > 0.1  # which says nothing that the table says


def test_charge_and_spin_outside_the_tables(tmp_path):
    omnicalc("models", "import", write(tmp_path / "md.pt", parts(CONSERVATIVE)), "--as", "allscaip:md")
    atoms = Atoms("Au3", [[0, 0, 0], [2.7, 0, 0], [0, 2.7, 0]], calculator=OmniCalc("allscaip:md", device="cpu"))
    for key, value, other in (("charge", 101, {"spin": 1}), ("spin", 102, {"charge": 0})):
        atoms.info = {key: value, **other}
        with pytest.raises(InputError, match=f"total {key} {value}, but AllScAIP's table goes"):
            atoms.get_potential_energy()


def test_scales_and_where_they_come_from(tmp_path):
    """Tasks in a list or in a table by name; without any, the usual scale of OMol25."""
    task = {"normalizer": {"mean": 0.0, "rmsd": torch.tensor(2.0, dtype=torch.float64)}}
    for tag, tasks, scale, origin in (
        ("listed", [task, {"name": "forces"}], 2.0, "2, rmsd of the checkpoint's tasks"),
        ("named", {"omol_energy": task}, 2.0, "2, rmsd of the checkpoint's tasks"),
        ("none", None, SCALE, "1.43357, usual for OMol25; the checkpoint records none"),
    ):
        content = parts(CONSERVATIVE, tasks_config=tasks)
        done = import_allscaip(write(tmp_path / "md.pt", content), f"allscaip:{tag}")
        assert done.card.config["scale"] == scale and done.card.training["scale"] == origin


@pytest.mark.parametrize("given", ["omol", ["oc20", "omol"], ["omol"], None])
def test_the_list_of_data_sets_names_and_chooses_nothing(tmp_path, given):
    content = parts(CONSERVATIVE)
    content["model_config"]["backbone"]["dataset_list"] = given
    done = import_allscaip(write(tmp_path / "md.pt", content), "allscaip:md")
    assert [head.name for head in done.card.heads] == ["omol"]


class TestRefusals:
    def refused(self, tmp_path, content, match: str) -> str:
        file = write(tmp_path / "md.pt", content)
        with pytest.raises(WeightsError, match=match) as caught:
            import_allscaip(file, "allscaip:md")
        assert not (tmp_path / "home").exists()
        return str(caught.value)

    def test_tensors_that_do_not_fit_are_all_named(self, tmp_path):
        content = parts(CONSERVATIVE)
        tensors, prefix = content["ema_state_dict"], "module.module.backbone."
        del tensors[f"{prefix}input_block.node_linear.0.bias"]
        tensors[f"{prefix}surprise"] = torch.zeros(2)
        tensors[f"{prefix}input_block.node_norm.weight"] = torch.zeros(5)
        message = self.refused(tmp_path, content, "nothing was loaded")
        assert "missing input.atom.bias (24,)" in message
        assert "unexpected (2,) backbone.surprise" in message
        assert "input.norm.weight has shape (5,), the config asks for (48,) (backbone.input_block.node_norm" in message
        assert message.count("\n") == 3

    def test_two_heads(self, tmp_path):
        content = parts(CONSERVATIVE)
        tensors = content["ema_state_dict"]
        for key in [k for k in tensors if "energyandforcehead" in k]:
            tensors[key.replace("energyandforcehead.head", "another")] = tensors[key]
        self.refused(tmp_path, content, "more than one energy head: .*energyandforcehead.head, .*another")

    def test_settings(self, tmp_path):
        for changes, match in (
            ({"knn_kk": 3}, "settings unknown: knn_kk"),
            ({"distance_function": "silu"}, "'silu' is not supported: the release draws"),
            ({"model": "escnmd_backbone"}, "published backbone 'escnmd_backbone' is not supported"),
            ({"freequency_list": [1, 2]}, "adds up to 3"),
            ({"activation": "tanh"}, "published activation 'tanh' is not supported; supported: gelu"),
            ({"use_envelope": 1}, "use_envelope = 1: true or false"),
            ({"num_layers": "two"}, "layers = 'two' given"),
            (
                {"use_freq_mask": True, "freequency_list": None},
                "freequency_list = None with use_freq_mask = true: whole",
            ),
            ({"use_freq_mask": True, "freequency_list": ["6"]}, "freequency_list = .'6'. with use_freq_mask = true"),
            (
                {"use_padding": True, "knn_pad_size": None},
                "knn_pad_size = None with use_padding = true: a whole number",
            ),
            ({"dataset_list": 3}, "dataset_list = 3: a list of names"),
        ):
            content = parts(CONSERVATIVE)
            content["model_config"]["backbone"].update(changes)
            self.refused(tmp_path, content, match)

    def test_a_part_that_is_missing(self, tmp_path):
        content = parts(CONSERVATIVE)
        del content["tasks_config"]
        self.refused(tmp_path, content, "tasks_config missing")

    def test_no_numbers(self, tmp_path):
        content = parts(CONSERVATIVE)
        content["ema_state_dict"]["module.x"] = torch.tensor([torch.nan])
        self.refused(tmp_path, content, "values that are not finite: x")

    def test_not_a_checkpoint(self, tmp_path):
        file = tmp_path / "md.pt"
        for content in (b"", b"no zip", pickle.dumps({"ema_state_dict": 1, "model_config": 2})):
            file.write_bytes(content)
            with pytest.raises(WeightsError, match="not a checkpoint"):
                import_allscaip(file, "allscaip:md")
        with pytest.raises(InputError, match="no such file"):
            import_allscaip(tmp_path / "nowhere.pt", "allscaip:md")

    def test_a_config_that_would_not_be_read(self, tmp_path):
        file = write(tmp_path / "md.pt", parts(CONSERVATIVE))
        with pytest.raises(InputError, match="holds its settings.*leave --config out"):
            import_file(file, tmp_path / "config.yaml", "allscaip:md")

    def test_smooth(self, tmp_path):
        file = write(tmp_path / "md.pt", parts(CONSERVATIVE))
        with pytest.raises(InputError, match="another function"):
            import_allscaip(file, "allscaip:md", smooth=True)

    @pytest.mark.parametrize(
        ("task", "match"),
        [
            ({"normalizer": {"rmsd": "abc"}}, "task 0: rmsd = 'abc'; a number above zero is needed"),
            ({"normalizer": {"rmsd": 2.0, "mean": "abc"}}, "task 0: mean = 'abc' is not supported; 0 is"),
            ({"normalizer": {"rmsd": 2.0, "mean": 1.0}}, "task 0: mean = 1.0 is not supported; 0 is"),
            ({"normalizer": 2.0}, "task 0: normalizer 2.0 is not understood"),
            ({"element_references": [0.0, -13.6]}, "task 0: its element references are 2 numbers; 84 finite numbers"),
            (
                {"element_references": {1: -13.6, 8: -2000.0}},
                "task 0: its element references are no list of numbers",
            ),
            (
                {"element_references": [torch.nan] * 100},
                "md.pt: task 0: its element references are not all finite",
            ),
        ],
    )
    def test_tasks_that_are_not_understood(self, tmp_path, task, match):
        self.refused(tmp_path, parts(CONSERVATIVE, tasks_config=[task]), match)
        self.refused(
            tmp_path, parts(CONSERVATIVE, tasks_config={"energy": task}), match.replace("task 0", "task energy")
        )

    def test_tasks_that_differ_or_are_none(self, tmp_path):
        for key, values in (
            ("normalizer", ({"rmsd": 1.0}, {"rmsd": 2.0})),
            ("element_references", ([0.0] * 84, [1] * 84)),
        ):
            tasks = [{key: value} for value in values]
            self.refused(tmp_path, parts(CONSERVATIVE, tasks_config=tasks), "tasks with different")
        self.refused(tmp_path, parts(CONSERVATIVE, tasks_config="omol"), "'tasks_config' is not understood: 'omol'")
        other = parts(CONSERVATIVE, tasks_config=None)
        other["model_config"]["backbone"]["dataset_list"] = ["omat"]
        with pytest.raises(WeightsError, match="record no scale .* for level 'omat' none is known"):
            import_allscaip(write(tmp_path / "md.pt", other), "allscaip:md", zero_references=True)

    def test_levels_without_references(self, tmp_path):
        content = parts(CONSERVATIVE)
        content["model_config"]["backbone"]["dataset_list"] = ["omat"]
        self.refused(tmp_path, content, "no reference energies are known for level 'omat'.*--zero-references")
        own = [float(z) for z in range(100)]
        content["tasks_config"][0]["element_references"] = {"element_references": {"_args_": [own]}}
        done = import_allscaip(write(tmp_path / "own.pt", content), "allscaip:own")
        assert done.card.heads[0].reference["C"] == 6.0
        assert load_potential("allscaip:own").model.config.isolated is None
