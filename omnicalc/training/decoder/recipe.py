"""Recipe of a decoder: one TOML file says which network, which trajectories and which schedule."""

import math
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from omnicalc.card import NAME_PART
from omnicalc.errors import InputError

SHIPPED = Path(__file__).parent.parent / "recipes"
_CHOICES = {"objective": ("s2t", "s2s"), "optimiser": ("muon", "adamw")}
_KINDS = {str: (str, "a text"), dict: (dict, "a table")}  # of keys without a default; others are lists of texts
_POSITIVE = ("learning_rate", "warmup", "steps", "batch", "frames", "shortest", "longest", "clip", "validate_every")


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
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        names = ", ".join(shipped())
        raise InputError(f"recipe '{path}' cannot be read ({error.strerror}); shipped: {names}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe '{path}' is not a TOML file: {error}") from None
    if table.pop("family", None) != "atom":
        raise InputError(f"recipe '{path}': family = \"atom\" is needed (potentials are trained by omnicalc train)")
    return decoder_recipe(table, str(path))


def decoder_recipe(table: dict, where: str) -> DecoderRecipe:
    """The recipe in a table. Raises :class:`InputError` naming the key that is missing, unknown or wrong."""
    known = {f.name: f for f in fields(DecoderRecipe)}
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing, unknown = [n for n in needed if n not in table], sorted(set(table) - set(known))
    if missing or unknown:
        parts = [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        raise InputError(f"recipe '{where}': keys {'; '.join(parts)}")
    for key, value in table.items():
        default = known[key].default
        if default is MISSING:
            kind, words = _KINDS.get(known[key].type, ((list, tuple), "a list of texts"))
            if not isinstance(value, kind):
                raise InputError(f"recipe '{where}': {key} = {value!r}; {words} is needed")
            continue
        whole_for_number = type(default) is float and type(value) is int
        if type(value) is not type(default) and not whole_for_number:
            raise InputError(f"recipe '{where}': {key} = {value!r}; a value such as {default!r} is needed")
    recipe = DecoderRecipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
    for key, allowed in _CHOICES.items():
        if getattr(recipe, key) not in allowed:
            given = getattr(recipe, key)
            raise InputError(f"recipe '{where}': {key} = {given!r}; one of {', '.join(allowed)} is needed")
    for key in ("molecules", "validation"):
        if not getattr(recipe, key):
            raise InputError(f"recipe '{where}': {key} is empty; at least one molecule is needed")
    for key in ("name", "tag", "version"):
        if not NAME_PART.fullmatch(getattr(recipe, key)):
            raise InputError(
                f"recipe '{where}': {key} = {getattr(recipe, key)!r}; letters, digits, '.', '_' and single '-' are "
                "needed"
            )
    seen = [name for name in recipe.test if name in recipe.molecules + recipe.validation]
    if seen:
        raise InputError(
            f"recipe '{where}': {', '.join(seen)} is in test, and in molecules or validation; errors on what was "
            "trained on would be called errors on unseen molecules"
        )
    for key in _POSITIVE:
        if not getattr(recipe, key) > 0:
            raise InputError(f"recipe '{where}': {key} = {getattr(recipe, key)}; more than 0 is needed")
    if recipe.shortest > recipe.longest or not 0 < recipe.train_part <= 1 or not 0 <= recipe.ema < 1:
        raise InputError(
            f"recipe '{where}': shortest at most longest, train_part above 0 and at most 1, and ema from 0 to below 1 "
            "are needed"
        )
    return recipe


def shipped() -> list[str]:
    """Names of the decoder recipes in the package."""
    return sorted(p.stem for p in SHIPPED.glob("atom-*.toml"))


def find_decoder_recipe(name: str) -> Path:
    """A file, or the shipped recipe of that name."""
    return SHIPPED / f"{name}.toml" if name in shipped() else Path(name)


def learning_rate(recipe: DecoderRecipe, step: int) -> float:
    """Linear warm-up, then a half cosine down to a hundredth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * (0.01 + 0.99 * cosine)


def as_table(recipe: DecoderRecipe) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()}
