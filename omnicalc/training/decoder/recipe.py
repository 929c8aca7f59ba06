"""Recipe of a decoder: one TOML file says which network, which trajectories and which schedule."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omnicalc.errors import InputError
from omnicalc.toml_table import read_recipe_table
from omnicalc.training.recipe import RECIPES, strict


@dataclass(frozen=True)
class DecoderRecipe:
    """Everything that makes one decoder. Times in fs."""

    name: str
    tag: str
    version: str
    summary: str
    licence: str
    citation: tuple[str, ...]
    data_command: str  # that makes the folder of trajectories
    molecules: tuple[str, ...]  # trained on
    validation: tuple[str, ...]  # of one that is trained on, the frames after train_part
    test: tuple[str, ...]  # never seen in training
    level_of_theory: str
    model: dict = field(default_factory=dict)  # of PhysicalConfig
    objective: str = "s2t"  # all frames, or s2s: the last one
    optimiser: str = "muon"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    warmup: int = 100
    steps: int = 5000
    batch: int = 32
    frames: int = 3  # per sample, evenly spaced up to a horizon between shortest and longest
    shortest: float = 10.0
    longest: float = 500.0
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    spacing_fs: float = 0.0  # of trajectories that do not tell theirs, as MD17 (0.5); 0: all tell
    train_part: float = 0.75  # of every training molecule's frames; the rest, later in time, is never trained on
    time_reversal: bool = True  # half of the samples run backwards, as constant energy allows
    random_rotations: bool = True
    validate_every: int = 250
    save_every: int = 100


def read_decoder_recipe(path: Path) -> DecoderRecipe:
    """Raises :class:`InputError` for a file that is not there, is not TOML, or has wrong keys or values."""
    table = read_recipe_table(path, RECIPES)
    if table.pop("family", None) != "atom":
        raise InputError(f"recipe '{path}': family = \"atom\" is needed (potentials are trained by omnicalc train)")
    return decoder_recipe(table, str(path))


def decoder_recipe(table: dict, where: str) -> DecoderRecipe:
    """The recipe in a table. Raises :class:`InputError` naming the key that is missing, unknown or wrong."""
    recipe = strict(DecoderRecipe, table, f"recipe '{where}'")
    seen = [name for name in recipe.test if name in recipe.molecules + recipe.validation]
    if seen:
        raise InputError(
            f"recipe '{where}': {', '.join(seen)} is in test, and in molecules or validation; errors on what was "
            "trained on would be called errors on unseen molecules"
        )
    if recipe.shortest > recipe.longest:
        raise InputError(
            f"recipe '{where}': shortest = {recipe.shortest:g} and longest = {recipe.longest:g}; shortest at most "
            "longest is needed"
        )
    return recipe


def shipped() -> list[str]:
    """Names of the decoder recipes in the package."""
    return sorted(p.stem for p in RECIPES.glob("atom-*.toml"))


def find_decoder_recipe(name: str) -> Path:
    """A file, or the shipped recipe of that name."""
    return RECIPES / f"{name}.toml" if name in shipped() else Path(name)


def learning_rate(recipe: DecoderRecipe, step: int) -> float:
    """Linear warm-up, then a half cosine down to a hundredth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * (0.01 + 0.99 * cosine)


def as_table(recipe: DecoderRecipe) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()}
