"""Training recipes: one TOML file says which model, which data (by source and hash) and which schedule."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from omnicalc.errors import InputError


@dataclass(frozen=True)
class DataSource:
    """One labelled file for one head; named by where it comes from and checked by its hash."""

    head: str  # name of the level of theory, also the name of the model's head
    level_of_theory: str
    file: str  # name of the local copy below the data folder
    sha256: str  # of the local copy
    repository: str
    commit: str
    path: str  # inside the repository
    licence: str
    citation: str
    split_note: str  # what kind of split the `split` key of the frames is
    conversion: str = ""  # how the local copy was made from the source
    weight: float = 1.0  # relative probability of drawing a frame from here
    exclude: dict[str, str] = field(default_factory=dict)  # frame keys that rule a frame out


@dataclass(frozen=True)
class Schedule:
    """Optimisation: Adam with linear warm-up and cosine decay, clipping relative to the running gradient norm."""

    steps: int
    seed: int = 0
    learning_rate: float = 3e-3
    final_rate: float = 0.01  # of the learning rate
    warmup: int = 300
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.5  # times the running mean of the gradient norm
    ema: float = 0.999
    energy_weight: float = 5.0
    energy_weight_late: float = 40.0
    late_fraction: float = 0.3  # last part of the run, with the late energy weight
    validate_every: int = 2000
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Recipe:
    """Everything that makes one set of weights."""

    name: str
    tag: str
    version: str
    family: str
    summary: str
    licence: str
    model: dict
    schedule: Schedule
    data: tuple[DataSource, ...]
    reference_prior: dict[str, float]  # element symbol -> eV, completes the least-squares reference energies
    reference_note: str
    charges: tuple[int, ...] = (0,)

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source.head for source in self.data))


def read_recipe(path: Path) -> Recipe:
    """Parse and check a recipe.

    Raises:
        InputError: missing file, bad TOML, or a key that is missing or unknown (named with its table).
    """
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise InputError(f"no recipe at '{path}'; give a TOML file, or one of the shipped recipes: {shipped}")
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe '{path}' is not valid TOML: {error}") from None
    schedule = _strict(Schedule, table.pop("schedule", {}), f"[schedule] of '{path}'")
    sources = tuple(_strict(DataSource, t, f"[[data]] of '{path}'") for t in table.pop("data", []))
    if not sources:
        raise InputError(f"recipe '{path}' names no [[data]]; at least one labelled file is needed")
    return _strict(Recipe, {**table, "schedule": schedule, "data": sources}, f"'{path}'")


RECIPES = Path(__file__).parent / "recipes"


def find_recipe(name: str) -> Path:
    """A path as given, or the shipped recipe of that name."""
    shipped = RECIPES / f"{name}.toml"
    return shipped if shipped.is_file() and not Path(name).is_file() else Path(name)


def _strict(kind, table: dict, where: str):
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InputError(f"unknown keys in {where}: {', '.join(unknown)}; known: {', '.join(known)}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
    except TypeError as error:
        missing = str(error).partition("argument")[2].lstrip("s: ")
        raise InputError(f"keys missing in {where}: {missing}") from None
