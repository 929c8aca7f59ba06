"""Bad input of every verb: one clear message, exit code 2, nothing written, nothing changed.

All commands run through :func:`omnicalc.cli.main` in one folder of bad and good files, with tiny untrained weights
in place of the bundled ones.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc import cli
from omnicalc.files import sha256_of
from tests.tiny_weights import write_weights

RECIPE = """
name = "toy"
tag = "test"
version = "0.1"
family = "e2former"
summary = "a toy"
licence = "MIT"
reference_note = "least squares"
[reference_prior]
H = -13.6
O = -432.0
[model]
elements = [1, 8]
channels = 8
n_basis = 4
radial_width = 4
[optimiser]
validate_every = 5
checkpoint_every = 5
[[stages]]
steps = 10
warmup = 5
[[data]]
head = "toy"
level_of_theory = "none"
file = "labelled.xyz"
sha256 = "{sha}"
repository = "none"
commit = "none"
path = "none"
licence = "MIT"
citation = "none"
split_note = "random"
"""
RECIPE_TYPOS = {  # file -> what is written in place of what
    "r_toml": ('tag = "test"', "tag = test"),
    "r_key": ("steps = 10", "stepz = 10"),
    "r_missing": ('summary = "a toy"\n', ""),
    "r_steps": ("steps = 10", "steps = -5"),
    "r_text": ("steps = 10", 'steps = "many"'),
    "r_nan": ("warmup = 5", "learning_rate = nan"),
    "r_rate": ("warmup = 5", "learning_rate = 1e30"),
    "r_warmup": ("warmup = 5", "warmup = 0"),
    "r_every": ("checkpoint_every = 5", "checkpoint_every = 0"),
    "r_mixture": ("warmup = 5", "mixture = [0.0]"),
    "r_stages": ("[[stages]]", "[stages]"),
    "r_name": ('name = "toy"', 'name = "a b/c"'),
    "r_version": ('version = "0.1"', "version = 1"),
    "r_symbol": ("H = -13.6", "H = -13.6\nQq = 1.0"),
    "r_family": ('"e2former"', '"e3former"'),
    "r_config": ("channels = 8", "chanels = 8"),
    "r_build": ("channels = 8", 'channels = "a"'),
    "r_elements": ("elements = [1, 8]", "elements = [1]"),
    "r_bool": ("channels = 8", 'channels = 8\nmirror_symmetric = "no"'),
    "r_lora": ("[reference_prior]", "lora_rank = 8\n[reference_prior]"),
    "r_clip": ("checkpoint_every = 5", "checkpoint_every = 5\nclip = 2.0\nclip_norm = 1.0"),
    "r_constant": ("warmup = 5", 'schedule = "constant"\nfinal_rate = 0.1'),
    "r_split": ('split_note = "random"', "valid_fraction = 0.5"),
    "r_cosine": ('split_note = "random"', "min_cosine = 0.5"),
    "r_huber": ("[optimiser]", "[objective]\nhuber_delta = 0.1\n[optimiser]"),
    "r_copies": ("[optimiser]", '[copy_heads]\ntoy = "old"\n[optimiser]'),
    "r_away": ('"labelled.xyz"', '"../labelled.xyz"'),
    "r_file": ('"labelled.xyz"', '"nowhere.xyz"'),
    "r_labels": ('"labelled.xyz"', '"water.xyz"'),
    "r_noframes": ('"labelled.xyz"', '"valid_only.xyz"'),
    "r_infinite": ('"labelled.xyz"', '"infinite.xyz"'),
}


def box(n: int = 2) -> Atoms:
    return molecule("H2O", cell=[3.2] * 3, pbc=True).repeat((n, n, n))


def labelled(split: str, energy: float = -1.0) -> Atoms:
    atoms = box(1)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((3, 3)))
    atoms.info["split"] = split
    if split == "valid":
        atoms.rattle(0.01, seed=1)  # no structure is to be in both splits
    return atoms


def make_structures() -> None:
    water = box()
    write("water.xyz", water, format="extxyz")
    Path("junk.xyz").write_bytes(bytes(range(256)) * 4)
    Path("truncated.xyz").write_text("".join(Path("water.xyz").read_text().splitlines(True)[:9]))
    Path("zero.xyz").touch()
    Path("no_atoms.xyz").write_text("0\n\n")
    Path("folder.xyz").mkdir()
    Path("text").write_text("hello")
    for name, change in {
        "nan": lambda a: a.positions.__setitem__((5, 1), np.nan),
        "double": lambda a: a.positions.__setitem__(5, a.positions[7]),
        "magnesium": lambda a: a.numbers.__setitem__(0, 12),
        "charged": lambda a: a.info.__setitem__("charge", 1),
    }.items():
        atoms = box()
        change(atoms)
        write(f"{name}.xyz", atoms, format="extxyz")
    salt = box()
    del salt[[1, 2, 4, 5]]
    salt.symbols[[0, 1]] = ["Na", "Cl"]
    write("salt.xyz", salt, format="extxyz")
    write("methane.xyz", molecule("CH4", cell=[9.0] * 3, pbc=True), format="extxyz")
    write("no_cell.xyz", molecule("H2O"), format="extxyz")
    flat = Atoms("O", cell=[9.0, 9.0, 0.0], pbc=True)
    write("zero_axis.traj", flat)


def make_weights(bundled: Path) -> None:
    """``weights`` is sound, the others are not; two more stand for the bundled ones."""
    for tag in ("small", "fast"):
        write_weights(bundled / f"ubio-s3-{tag}-0.1", name="ubio-s3", tag=tag, version="0.1")
    kinds = ("weights", "flipped", "cut", "no_card", "typo", "no_files", "junk_card", "other_config")
    for name in kinds:
        write_weights(Path(name))
    content = bytearray(Path("flipped/model.safetensors").read_bytes())
    content[-7] ^= 1
    Path("flipped/model.safetensors").write_bytes(content)
    Path("cut/model.safetensors").write_bytes(content[: len(content) // 2])
    for path in ("no_card/card.toml", "no_files/card.toml", "no_files/model.safetensors"):
        os.remove(path)
    Path("junk_card/card.toml").write_bytes(bytes(range(256)))
    for name, old, new in (("typo", "licence", "license"), ("other_config", "channels = 8", "channels = 16")):
        card = Path(name, "card.toml")
        card.write_text(card.read_text().replace(old, new))


def make_recipes() -> None:
    data = Path("data")
    data.mkdir()
    write(data / "labelled.xyz", [labelled(s) for s in ("train", "train", "valid")], format="extxyz")
    write(data / "valid_only.xyz", [labelled("valid")], format="extxyz")
    write(data / "infinite.xyz", [labelled(s, np.inf) for s in ("train", "valid")], format="extxyz")
    shutil.copy("water.xyz", data)
    good = RECIPE.format(sha=sha256_of(data / "labelled.xyz"))
    Path("good.toml").write_text(good)
    Path("r_hash.toml").write_text(RECIPE.format(sha="0" * 64))
    for name, (old, new) in RECIPE_TYPOS.items():
        assert good.count(old) == 1, old
        text = good.replace(old, new)
        file = data / new.strip('"')
        if file.is_file():
            text = text.replace(sha256_of(data / "labelled.xyz"), sha256_of(file))
        Path(f"{name}.toml").write_text(text)


def make_runs() -> None:
    """A finished run of molecular dynamics, copies of its trajectory, and a stopped training."""
    assert typed("md water.xyz --model ./weights --steps 6 --interval 2 --seed 1 --out run") == 0
    assert typed("train good.toml --data data --out trained --steps 5") == 0
    shutil.copytree("trained", "damaged_training")
    state = Path("damaged_training/state.pt")
    state.write_bytes(state.read_bytes()[:1000])
    for folder in ("lone", "foreign"):
        Path(folder).mkdir()
        shutil.copy("run/traj.dcd", folder)
    shutil.copy("run/topology.pdb", "foreign")
    Path("foreign/rdf.png").write_text("a drawing of somebody")


def typed(command: str) -> int:
    """The exit code of a command as typed."""
    before, sys.argv = sys.argv, ["omnicalc", *shlex.split(command)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory):
    """The folder that every command runs in."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("bad_input")
        bundled = tmp_path_factory.mktemp("bundled")
        patch.chdir(folder)
        patch.setattr("omnicalc.registry.BUNDLED", bundled)
        patch.setattr("omnicalc.md.loop.plots.draw", lambda *arguments, **keywords: None)
        patch.setattr("omnicalc.md.run.lacks_plots", lambda folder, settings: False)
        patch.setattr("omnicalc.cli.memory.keep_freed_memory", lambda: None)
        make_structures()
        make_weights(bundled)
        make_recipes()
        make_runs()
        yield folder
    assert torch.get_num_threads() == threads, "commands leave it as it was"


def tree(folder: Path) -> dict:
    """What lies in a folder: bytes of every file, None for folders."""
    return {p.relative_to(folder): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}


STRUCTURES = [
    ("missing.xyz", "missing.xyz: no such file"),
    ("watr.xyz", "did you mean water.xyz"),
    ("nowhere/water.xyz", "nor a folder nowhere"),
    ("junk.xyz", "junk.xyz: ASE cannot read it"),
    ("text", "text: not a file that ASE can read"),
    ("truncated.xyz", "truncated.xyz: ASE cannot read it"),
    ("zero.xyz", "empty structure: zero.xyz"),
    ("no_atoms.xyz", "no_atoms.xyz: empty structure"),
    ("folder.xyz", "folder.xyz is a folder"),
    ("nan.xyz", "nan.xyz: atom 5"),
    ("double.xyz", "double.xyz: atom 5 (H) and atom 7 (H) are 0 Å apart"),
    ("zero_axis.traj", "zero_axis.traj: periodic along c but its cell vector is zero"),
    ("magnesium.xyz", "does not know element Mg: head 'water-theory' knows H, O; head 'salt-theory' knows H, O, Na"),
    ("methane.xyz", "does not know element C"),
    ("charged.xyz", "total charge 1"),
]
MODELS = [
    ("ubio-s33", "unknown model 'ubio-s33'; did you mean ubio-s3"),
    ("UBIO-S3", "did you mean ubio-s3"),
    ("ubio-s3:smal", "did you mean ubio-s3:small"),
    ("ubio-s3@0.9", "no version 0.9 of ubio-s3:small on this machine; there is ubio-s3:small@0.1"),
    ("ubio-s3:24m", "its weights are not on this machine"),
    ("''", "is empty; give"),
    ("weights", "for the folder of that name type ./weights"),
    ("./nowhere", "nowhere: no such folder"),
    ("./text", "text is no weights folder"),
    ("./flipped", "flipped/model.safetensors is damaged or was changed"),
    ("./cut", "cut/model.safetensors is damaged or was changed"),
    ("./no_card", "no_card is no weights folder: it has no card.toml"),
    ("./no_files", "it has no card.toml and no model.safetensors"),
    ("./junk_card", "junk_card/card.toml: not a TOML file"),
    ("./typo", "keys missing: licence; unknown: license"),
]
MD_OPTIONS = [
    ("--steps -5", "steps is -5; at least 1 is needed (--steps)"),
    ("--steps 0", "steps is 0"),
    ("--steps 1.5", "'1.5' is not a valid integer"),
    ("--steps 99999999999999999999", "fewer --steps or a larger --interval"),
    ("--timestep 0", "the time step is 0.0 fs"),
    ("--timestep -1", "the time step is -1.0 fs"),
    ("--timestep nan", "the time step is nan fs"),
    ("--timestep 1e9", "a positive number up to 100 is needed"),
    ("--temperature nan", "the temperature is nan K"),
    ("--temperature -1", "the temperature is -1.0 K"),
    ("--temperature 1e9", "from 0 to 1e+06"),
    ("--friction -1", "the friction is -1.0 1/fs"),
    ("--friction 0", "--ensemble nve"),
    ("--friction 0.1 --thermostat nhc", "--friction has no say with nhc; add --thermostat langevin"),
    ("--friction 0.1 --ensemble nve", "--friction has no say in nve; add --ensemble nvt"),
    ("--thermostat-time 50", "--thermostat-time has no say with langevin; add --thermostat bussi"),
    ("--ensemble npt --barostat mc --compressibility 1e-4", "--compressibility has no say with mc; add --barostat"),
    ("--constraint-tolerance 1e-8", "--constraint-tolerance has no say without constraints"),
    ("--restrain 0:1e6", "a spring of 1e+06 eV/Å^2 lets atom 0 (O) swing in 0.256 fs, too fast for a time step of 0.5"),
    ("--interval 0", "interval is 0"),
    ("--interval 3000000000", "interval is 3000000000; at most 2147483647 is possible"),
    ("--restart-interval 0", "restart_interval is 0"),
    ("--seed -1", "the seed is -1"),
    ("--ensemble nvp", "unknown ensemble 'nvp'; known: nvt, nve, npt"),
    ("--head nope", "unknown head 'nope'; "),
    ("--charge 1", "total charge 1"),
    ("--charge 1.5", "'1.5' is not a valid integer"),
    ("--spin 2", "spin 2 does not fit"),
    ("--spin 0", "spin 0 given"),
    ("--cell garbage", "cell 'garbage' given"),
    ("--cell 1,2", "cell '1,2' given"),
    ("--cell -5", "lengths above 0 Å"),
    ("--cell 0.001", "give the cell in Å with --cell"),
    ("--cell 10,10,10,10,10,170", "has no volume"),
    ("--cell 12 --no-pbc", "needs no cell: leave one out (--cell, --no-pbc)"),
    ("--device nonsense", "unknown device 'nonsense'; use auto, cpu"),
    ("--device meta", "unknown device 'meta'; use auto, cpu"),
    ("--dtype float16", "dtype 'float16' given; float32 or float64 is needed"),
    ("--skin -1", "skin -1.0 Å given"),
    ("--skin 100", "skin 100 Å given; at most 10 Å"),
    ("--threads 0", "0 is not in the range 1<=x<=1024"),
    ("--threads 99999", "99999 is not in the range 1<=x<=1024"),
    ("--out run", "run already holds a run: go on with it with --resume, or choose another folder with --out"),
    ("--out text", "text is a file; give another folder with --out"),
    ("--out text/below", "text is not a folder; give another folder with --out"),
    ("--out lone", "lone holds traj.dcd but no run.json"),
    ("--out ''", "--out is empty; give it a value, or leave --out out"),
    ("--replicas 0", "0 replicas; a number from 1"),
    ("--replicas 2 --beads 4", "leave --replicas or --beads out"),
    ("--beads -1", "-1 beads"),
    ("--beads 4 --ensemble npt", "leave --ensemble out"),
    ("--constrain nowhere.txt", "--constrain nowhere.txt: no such file; 'h-bonds', or a file"),
    ("--constrain text", "'I J' or 'I J LENGTH' is needed"),
    ("--constrain h-bonds --constraint-tolerance 1", "the constraint tolerance is 1.0"),
    ("--constrain h-bonds --ensemble npt", "with --constrain use --barostat mc"),
    ("--engine gromacs", "unknown engine 'gromacs'; known: omnicalc, openmm (--engine)"),
    ("--engine openmm --thermostat bussi", "--engine openmm does not have --thermostat bussi here"),
    ("--save charges", "'charges' cannot be saved; known: forces, velocities, extxyz, xtc, traj (--save)"),
    ("--guard uncertainty=stop:0.3", "this model gives no spread of its forces"),
    ("--plan --steps 0", "steps is 0"),
]
RELAX_OPTIONS = [
    ("--fmax 0", "fmax is 0.0 eV/Å"),
    ("--optimizer newton", "unknown optimizer 'newton'; known: lbfgs, fire (--optimizer)"),
    ("--relax-cell up", "unknown cell move 'up'"),
    ("--pressure 5", "add --relax-cell isotropic"),
    ("--fix 5-2", "'5-2' goes backwards; a range has its lower number first, as in --fix 2-5"),
    ("--fix 99", "'99' names atoms outside 0 to 23"),
    ("--batch-atoms 0", "0 atoms per batch"),
    ("--out run", "run already holds a run"),
    ("--out text", "text is a file"),
    ("--out run --resume", "cannot resume run, it would not be the same relaxation"),
]
RESUMED = [
    ("water.xyz", "the run in run is finished at step 6; to extend it, add --steps N with N above 6"),
    ("water.xyz --steps 3", "the run in run is finished at step 6"),
    ("water.xyz --steps 9 --temperature 400", "temperature_K was 300.0, now 400.0"),
    ("water.xyz --steps 9 --interval 5", "interval was 2, now 5"),
    ("water.xyz --steps 9 --dtype float64", "dtype was float32, now float64"),
    ("water.xyz --steps 9 --model ubio-s3:fast --head x", "head was water-theory, now x"),
    ("water.xyz --steps 9 --model ./typo", "keys missing"),
    ("water.xyz --steps 9 --cell 7", "structure was"),
    ("salt.xyz --steps 9", "cannot resume run, it would not be the same run: structure was"),
]
ANALYSES = [
    ("nowhere.dcd", "nowhere.dcd does not exist"),
    ("run --select Q O", "is neither an element nor a selection"),
    ("junk.xyz", "junk.xyz cannot be read as a trajectory"),
    ("zero.xyz", "zero.xyz is empty"),
    ("no_atoms.xyz", "no_atoms.xyz holds frames without atoms"),
    ("nan.xyz", "nan.xyz: frame 0 has a non-finite coordinate at atom 5"),
    ("no_cell.xyz", "has no cell that is periodic along all three axes"),
    ("lone/traj.dcd", "no topology lies beside it"),
    ("lone/traj.dcd --top salt.xyz", "holds 24 atoms per frame but the topology salt.xyz names 20"),
    ("lone/traj.dcd --top nope.pdb", "no topology file nope.pdb"),
    ("lone/traj.dcd --top junk.xyz", "junk.xyz cannot be read as a topology"),
    ("foreign/traj.dcd", "foreign/rdf.png is there already"),
    ("run/traj.dcd --pair Na-Cl", "there is no element Na in this trajectory"),
    ("run/traj.dcd --pair O", "--pair O is not a pair"),
    ("run/traj.dcd --bin 0", "--bin 0.0 is not a width"),
    ("run/traj.dcd --rmax 100", "--rmax 100 Å is beyond"),
    ("run/traj.dcd --start 50", "--start 50 selects no frame"),
    ("run/traj.dcd --step 0", "--step 0 is not a stride"),
    ("run/traj.dcd --blocks 0", "--blocks 0 is too few"),
    ("run/traj.dcd --out text", "text is a file; give another folder with --out"),
    ("run/traj.dcd --out text/below", "text is not a folder; give another folder with --out"),
    ("run/traj.dcd --out ''", "--out is empty; give it a value, or leave --out out"),
    ("run/traj.dcd --compare nope", "--compare nope does not exist"),
]
TRAINING = [
    ("nope", "no recipe at 'nope'; give a TOML file, or one of the shipped recipes"),
    ("folder.xyz", "no recipe at 'folder.xyz'"),
    ("junk.xyz", "recipe 'junk.xyz' is not valid TOML"),
    ("r_toml.toml", "is not valid TOML"),
    ("r_key.toml", "unknown keys in [[stages]] of 'r_key.toml': stepz"),
    ("r_missing.toml", "keys missing in 'r_missing.toml': summary"),
    ("r_steps.toml", "steps = -5 in [[stages]]"),
    ("r_text.toml", "steps = 'many' in [[stages]] of 'r_text.toml': a whole number is needed"),
    ("r_nan.toml", "learning_rate = nan"),
    ("r_rate.toml", "learning_rate = 1e+30 in [[stages]] of 'r_rate.toml': a number above 0 and at most 1 is needed"),
    ("r_warmup.toml", "warmup = 0"),
    ("r_every.toml", "checkpoint_every = 0"),
    ("r_mixture.toml", "mixture = (0.0,)"),
    ("r_stages.toml", "write its header as [[stages]]"),
    ("r_name.toml", "name = 'a b/c'"),
    ("r_version.toml", "version = 1 in 'r_version.toml': text is needed"),
    ("r_symbol.toml", "a table from element symbols"),
    ("r_family.toml", "unknown model family 'e3former'"),
    ("r_config.toml", "unknown e2former settings: chanels"),
    ("r_build.toml", "channels = 'a' given; a whole number of at least 1 is needed"),
    ("r_bool.toml", "mirror_symmetric = 'no' given; true or false is needed"),
    (
        "r_lora.toml",
        "lora_rank in 'r_lora.toml' has no say without LoRA; set trains =",
    ),
    ("r_clip.toml", "clip in [optimiser] of 'r_clip.toml' has no say beside clip_norm"),
    ("r_constant.toml", "final_rate in [[stages]] of 'r_constant.toml' has no say in a constant schedule"),
    ("r_split.toml", "valid_fraction in [[data]] of 'r_split.toml' has no say where the key split"),
    ("r_cosine.toml", "min_cosine in [[data]] of 'r_cosine.toml' has no say without forces to compare with"),
    ("r_huber.toml", "huber_delta in [objective] of 'r_huber.toml' has no say with this loss"),
    ("r_copies.toml", "copy_heads names heads of weights to begin with; say which, by start or --from"),
    ("r_elements.toml", "holds atomic numbers [8]; add them to elements in [model]"),
    ("r_away.toml", "the name of a file below the data folder is needed"),
    ("r_file.toml", "'nowhere.xyz' is not below 'data'"),
    ("r_hash.toml", "the recipe asks for 000000"),
    ("r_labels.toml", "lacks the key split=train|valid; add it"),
    ("r_noframes.toml", "has the key split=train"),
    ("r_infinite.toml", "frame 0 of 'data/infinite.xyz': energy not finite; leave this frame out"),
    ("good.toml --data nowhere", "'nowhere' is no folder"),
    ("good.toml --out text", "text is a file; give another folder"),
    ("good.toml --out text/below", "text is not a folder"),
    ("good.toml --out run", "'run' is not empty; continue it with --resume or choose another with --out"),
    ("good.toml --out ''", "--out is empty; give it a value, or leave --out out"),
    ("good.toml --resume", "holds no training run to resume"),
    ("good.toml --out damaged_training --resume", "state.pt is damaged"),
    ("good.toml --steps 0", "0 is not in the range"),
]
EVALUATIONS = [
    ("./weights missing.xyz", "missing.xyz: no such file"),
    ("./weights junk.xyz", "junk.xyz, frame 0: its first line is"),
    ("./weights water.xyz", "frame 0 of 'water.xyz' lacks energy and forces"),
    ("./weights data/infinite.xyz", "frame 0 of 'data/infinite.xyz' has an energy or forces that are not finite"),
    ("./weights data/labelled.xyz --split test", "no frames with split=test"),
    ("./weights data/labelled.xyz --head nope", "unknown head 'nope'"),
    ("./flipped data/labelled.xyz", "damaged or was changed"),
    ("ubio-s33 data/labelled.xyz", "did you mean"),
]
BENCHMARKS = [
    ("--sizes 100", "a water box of 100 atoms asked for; multiples of 3"),
    ("--sizes 24,0", "a water box of 0 atoms"),
    ("--sizes -3", "a water box of -3 atoms"),
    ("--sizes 3000000000", "a water box of 3000000000 atoms"),
    ("--sizes abc", "--sizes abc given"),
    ("--rounds 0", "0 is not in the range"),
    ("--threads 99999", "99999 is not in the range 1<=x<=1024"),
    ("--structure missing.xyz", "missing.xyz: no such file"),
    ("--structure salt.xyz", "a water box with a periodic cell is needed"),
    ("--structure no_cell.xyz", "a water box with a periodic cell is needed"),
    ("--device nonsense", "unknown device 'nonsense'"),
]
CASES = [
    *((f"md {file} --steps 2 --out new", said) for file, said in STRUCTURES),
    ("md no_cell.xyz --steps 2 --out new", "give one in Å, as in --cell 12.4, or run it without"),
    *((f"sp {file}", said) for file, said in STRUCTURES),
    *((f"md water.xyz --steps 2 --out new --model {name}", said) for name, said in MODELS),
    *((f"models {name}", said) for name, said in MODELS if "damaged" not in said),
    *((f"models --verify {name}", said) for name, said in MODELS),
    *((f"sp water.xyz --model {name}", said) for name, said in MODELS),
    *((f"md water.xyz --steps 2 --out new {option}", said) for option, said in MD_OPTIONS),
    *((f"md no_cell.xyz --steps 2 --out new {option}", said) for option, said in MD_OPTIONS),
    ("md salt.xyz --head water-theory --out new", "does not know element Na, Cl"),
    ("sp salt.xyz --head water-theory", "head 'salt-theory' knows all of them"),
    ("sp no_cell.xyz --stress", "stress needs a structure periodic along all three axes"),
    ("sp water.xyz --index 5", "water.xyz holds 1 frames; index 5 is not among them"),
    ("sp water.xyz --model ./other_config", "does not fit its card.toml"),
    *((f"relax {words} --model ./weights --out new", said) for words, said in STRUCTURES),
    *((f"relax water.xyz --model ./weights --out new {words}", said) for words, said in RELAX_OPTIONS),
    *((f"md {words} --out run --resume", said) for words, said in RESUMED),
    ("md water.xyz --steps 9 --replicas 2 --out run --resume", "replicas was none, now 2"),
    *((f"analyze rdf {words}", said) for words, said in ANALYSES),
    *((f"train --data data --out new {words}", said) for words, said in TRAINING),
    *((f"evaluate {words}", said) for words, said in EVALUATIONS),
    *((f"bench ./weights --structure water.xyz {words}", said) for words, said in BENCHMARKS),
    ("bench", "there is no examples/water.xyz in this folder"),
    ("train good.toml", "Missing option '--data'"),
    ("analyze nmr run/traj.dcd", "No such command 'nmr'"),
    ("nonsense", "No such command 'nonsense'"),
    *(
        (f"md water.xyz --out new --{name} ''", f"--{name} is empty")
        for name in ("fix", "constrain", "restrain", "save")
    ),
    ("md water.xyz --out new --guard=", "--guard is empty; give it a value, or leave --guard out"),
    ("relax water.xyz --out new --relax-cell ' '", "--relax-cell is empty"),
    ("data split water.xyz --out new.xyz --property ''", "--property is empty"),
    ("analyze msd run --select ''", "--select is empty"),
    ("sp ''", "an argument is empty"),
    ("md water.xyz --out run.dcd", "a folder for several files is needed, not a file; as in --out run\n"),
    ("relax water.xyz --out relaxed.extxyz.gz", "not a file; as in --out relaxed\n"),
    ("analyze msd run/traj.dcd --out msd.png", "not a file; as in --out msd\n"),
]


@pytest.mark.parametrize(("command", "said"), CASES, ids=[command for command, _ in CASES])
def test_one_message_and_no_trace(scratch, capsys, command, said):
    before = tree(scratch)
    assert typed(command) == 2
    out, err = capsys.readouterr()
    assert said in err and "Traceback" not in err
    assert out == "", "nothing is said before the input is known to be good"
    if not err.startswith("Usage: "):  # click's own errors have three lines
        assert err.startswith("error: ") and err.count("\n") == 1
    assert tree(scratch) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(scratch, capsys):
    assert typed("sp water.xyz --device cuda") == 2
    assert "device 'cuda' cannot be used" in capsys.readouterr().err


def test_good_input_passes_and_leaves_a_trace(scratch, capsys):
    """The check above can fail: what is right is not refused, and a new file would be seen."""
    before = tree(scratch)
    assert typed("sp water.xyz --model ./weights") == 0
    assert tree(scratch) == before
    assert typed("md salt.xyz --steps 2 --out salted") == 0
    assert "salt-theory (the first that knows all elements)" in capsys.readouterr().out
    assert tree(scratch) != before
    shutil.rmtree("salted")


def test_spaces_and_letters_in_paths(scratch, capsys, tmp_path):
    folder = tmp_path / "sp in"
    write_weights(folder / "ünï")
    write(folder / "wäter b.xyz", read("water.xyz"), format="extxyz")
    words = [f"{folder}/wäter b.xyz", "--model", f"{folder}/ünï", "--out", f"{folder}/öut", "--steps", "2"]
    words += ["--guard", "bond=off"]  # untrained weights hold no molecule together
    assert typed(f"md {shlex.join(words)}") == 0
    typed_next = [line.strip() for line in capsys.readouterr().out.splitlines() if "--resume" in line]
    assert typed(typed_next[0].removeprefix("omnicalc ")) == 0


def test_one_molecule_without_a_cell(scratch, capsys):
    """Runs when that was said; g(r), which needs a density, is then not the command to type next."""
    assert typed("md no_cell.xyz --no-pbc --steps 2 --out alone") == 0
    said = capsys.readouterr().out
    assert "analyze rdf" not in said and "--resume" in said
    shutil.rmtree("alone")


@pytest.mark.parametrize(
    "command",
    [
        "md water.xyz --model ./weights --steps 2 --out full/below",
        "md water.xyz --model ./weights --steps 2 --replicas 2 --out full/below",
        "relax water.xyz --model ./weights --steps 2 --out full/below",
        "analyze rdf run/traj.dcd --pair O-O --out full/below",
        "train good.toml --data data --out full/below",
    ],
)
def test_a_full_disk(scratch, capsys, monkeypatch, command):
    """No file can be written: one message, and no empty folder stays behind."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = tree(scratch)
    assert typed(command) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and ("full" in err or "No space" in err)
    assert tree(scratch) == before
