"""Recipes of structures: a TOML file of components (SMILES) and groups of systems made of them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from omnicalc.errors import InputError
from omnicalc.toml_table import (
    ABOVE_0,
    AT_LEAST_1,
    FRACTION,
    NOT_NEGATIVE,
    SEED,
    find_shipped,
    one_of,
    read_recipe_table,
    strict,
)

RECIPES = Path(__file__).parents[1] / "recipes"
KINDS = ("sample", "stretch", "approach", "apart", "carve")
_MOVING = ("sample", "apart", "carve")  # kinds whose frames are of dynamics
_KINDS_OF = {  # key -> the only kinds that it has a say in
    **dict.fromkeys(("file", "radius", "prepare_ps", "solvate", "salt", "neutral"), ("carve",)),
    **dict.fromkeys(("temperatures", "md_frames", "md_every", "rattles", "stretched"), _MOVING),
    **dict.fromkeys(("relax_steps", "relax_frames", "stretch"), ("stretch", *_MOVING)),
    "waters": ("sample", "stretch", "approach", "apart"),
    "frames": ("stretch", "approach"),
    "approach": ("approach",),
    "apart": ("apart",),
}
_SOME = (bool, "a list of at least one")
_SPAN = (lambda x: 0 <= x[0] <= x[1], "a list of two numbers of 0 or more, the lower one first,")
_RANGES = {
    ("Group", "kind"): one_of(*KINDS),
    ("Group", "systems"): _SOME,
    ("Group", "waters"): (lambda x: x and min(x) >= 0, "a list of whole numbers of 0 or more"),
    ("Group", "starts"): AT_LEAST_1,
    ("Group", "temperatures"): (lambda x: x and min(x) >= 0, "a list of numbers of 0 or more"),
    ("Group", "relax_steps"): NOT_NEGATIVE,
    ("Group", "relax_frames"): NOT_NEGATIVE,
    ("Group", "md_frames"): NOT_NEGATIVE,
    ("Group", "md_every"): AT_LEAST_1,
    ("Group", "rattles"): NOT_NEGATIVE,
    ("Group", "rattle_width"): _SPAN,
    ("Group", "stretched"): FRACTION,
    ("Group", "stretch"): _SPAN,
    ("Group", "approach"): _SPAN,
    ("Group", "apart"): _SPAN,
    ("Group", "frames"): AT_LEAST_1,
    ("Group", "max_force"): ABOVE_0,
    ("Group", "radius"): _SPAN,
    ("Group", "prepare_ps"): NOT_NEGATIVE,
    ("Group", "salt"): NOT_NEGATIVE,
    ("Recipe", "seed"): SEED,
    ("Recipe", "only_split"): one_of("", "train", "valid", "test"),
    ("Recipe", "step_fs"): ABOVE_0,
    ("Recipe", "hydrogen_mass"): ABOVE_0,
    ("Recipe", "friction_per_fs"): NOT_NEGATIVE,
    ("Recipe", "jobs_per_shard"): AT_LEAST_1,
    ("Recipe", "decimals"): (lambda x: 3 <= x <= 15, "a whole number from 3 to 15"),
}


@dataclass(frozen=True)
class Group:
    """Systems of one kind, all sampled alike."""

    config_type: str
    systems: tuple[str, ...]  # "dmp mg water*3": components joined by blanks; ACE-A-mV-NME is a peptide
    kind: str = "sample"
    waters: tuple[int, ...] = (0,)  # every system is built once with each of these numbers of waters added
    starts: int = 1  # independent starting geometries of each
    temperatures: tuple[float, ...] = (300.0, 400.0, 500.0, 600.0)  # K, one per start, in turn
    relax_steps: int = 25  # of FIRE from the start
    relax_frames: int = 2  # of these, kept
    md_frames: int = 8
    md_every: int = 10  # steps between kept frames
    rattles: int = 1  # displaced copies of each kept frame of dynamics
    rattle_width: tuple[float, float] = (0.01, 0.08)  # Å, drawn between
    stretched: float = 0.25  # share of the kept frames of which a copy with stretched or squeezed bonds is kept
    stretch: tuple[float, float] = (0.75, 1.6)  # factor on a bond's length
    approach: tuple[float, float] = (0.45, 2.5)  # factor on the contact distance of two pieces
    apart: tuple[float, float] = (3.0, 7.0)  # Å, of kind apart: how far the first two pieces are held from each other
    frames: int = 20  # of kinds stretch and approach, per start
    max_force: float = 30.0  # eV/Å; frames above are left out
    file: str = ""  # of kind carve: the structure file
    radius: tuple[float, float] = (3.0, 4.5)  # of kind carve, Å; systems are selections of MDAnalysis for the centre
    prepare_ps: float = 2.0  # of kind carve: dynamics of the whole box by OpenMM before it is cut; 0: as the file is
    solvate: bool = False  # of kind carve: put the file into a box of water and neutralise it first
    salt: float = 0.0  # mol/L of NaCl in that water
    neutral: bool = False  # of kind carve: counter-ions are put beside a charged sphere


@dataclass(frozen=True)
class Recipe:
    name: str
    seed: int
    summary: str
    groups: tuple[Group, ...]
    components: dict[str, str]  # name -> SMILES
    solvent: tuple[str, ...] = ("water", "na", "k", "mg", "cl")  # components that do not name a molecule
    split_salt: str = ""  # before the molecule's name when that is hashed for its split
    always_train: tuple[str, ...] = ()  # molecules too elementary to be left out of training
    only_split: str = ""  # "train", "valid" or "test": of all frames, whatever their molecules are called
    step_fs: float = 2.0
    hydrogen_mass: float = 4.0  # amu, in sampling only: static averages do not know masses
    friction_per_fs: float = 0.02
    jobs_per_shard: int = 10
    decimals: int = 8  # of positions (Å) and forces (eV/Å) that are kept; 5 make files smaller by a third
    licence: str = "CC0-1.0"
    notes: dict = field(default_factory=dict)


def read_recipe(name: str | Path) -> Recipe:
    """A recipe from a path or by the name of a shipped one.

    Raises:
        InputError: no such recipe, bad TOML, a key that is unknown, missing, wrong or without a say in its kind of
            group, or a system that cannot be parsed.
    """
    path = find_shipped(name, RECIPES)
    table = read_recipe_table(path, RECIPES)
    groups = table.pop("groups", [])
    if not groups or not isinstance(groups, list):
        raise InputError(f"recipe '{path}' needs at least one [[groups]]")
    made = tuple(_group(group, f"[[groups]] {k + 1} of '{path}'") for k, group in enumerate(groups))
    recipe = strict(Recipe, {**table, "groups": made}, f"'{path}'", _RANGES)
    _check(recipe, path)
    return recipe


def _group(table: object, where: str) -> Group:
    group = strict(Group, table, where, _RANGES)
    for key in table:
        if group.kind not in _KINDS_OF.get(key, KINDS):
            raise InputError(
                f"{key} in {where} has no say in kind '{group.kind}', only in {', '.join(_KINDS_OF[key])}; leave it out"
            )
    if group.kind == "carve" and not group.file:
        raise InputError(f"file is missing in {where}: a group of kind carve names the structure it is cut from")
    if group.salt and not group.solvate:
        raise InputError(f"salt in {where} is that of the water around; add solvate = true, or leave it out")
    return group


def _check(recipe: Recipe, path: Path) -> None:
    from omnicalc.data.build.composition import composition

    for group in recipe.groups:
        if group.kind == "carve":
            continue
        for system in group.systems:
            pieces = len(composition(system, recipe))
            if pieces < 2 and group.kind in ("approach", "apart"):
                raise InputError(f"system '{system}' in '{path}': kind '{group.kind}' needs two pieces or more")
    from omnicalc.data.build.job import jobs

    names = Counter(job.name(recipe) for job in jobs(recipe))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(f"'{path}' asks for {twice[0]} more than once; equal names mean equal structures")
