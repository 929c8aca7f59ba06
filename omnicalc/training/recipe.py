"""Training recipes: one TOML file says which model, which data (by source and hash) and which schedule."""

from dataclasses import dataclass, field
from pathlib import Path

from omnicalc import toml_table
from omnicalc.errors import InputError
from omnicalc.toml_table import find_shipped, read_recipe_table
from omnicalc.training.recipe_checks import RANGES


@dataclass(frozen=True)
class DataSource:
    """Labelled structures for one head: one file named by its hash, or shards of one's own by a pattern."""

    head: str  # name of the level of theory, also the name of the model's head
    level_of_theory: str
    file: str = ""  # name of the local copy below the data folder, checked by its hash
    sha256: str = ""  # of the local copy
    shards: str = ""  # or: a pattern of files, such as "xtb/*.extxyz.gz", below the data folder or absolute
    repository: str = ""
    commit: str = ""
    path: str = ""  # inside the repository
    licence: str = "not stated"
    citation: str = ""
    split_note: str = ""  # what kind of split the `split` key of the frames is
    conversion: str = ""  # how the local copy was made from the source
    name: str = ""  # in logs and cards; by default the file's name
    weight: float = 1.0  # relative probability of drawing a structure from here
    energies: bool = True  # false: learn from forces only, as where the zero of energy differs from the head's
    forces: bool = True  # false: learn from energies only
    exclude: dict[str, str] = field(default_factory=dict)  # keys that rule a frame out, with any of the values
    only: dict[str, str] = field(default_factory=dict)  # keys a frame needs, with one of the values: "md300,md400"
    split_by: str = "key"  # the frames' key "split"; or "molecule" or "frame": by a hash, valid_fraction of them
    valid_fraction: float = 0.1
    limit: int | None = None  # train on so many frames only, chosen by the seed
    max_force: float | None = None  # eV/Å; frames with a larger force are left out
    cosine_key: str = ""  # per-atom forces of another method in the frames; see min_cosine
    surroundings: bool = True  # false: atoms in surroundings like theirs are told of all the same, as of broken bonds
    replay: int = 0  # training frames that go into the weights folder, for fine-tuning without forgetting
    min_cosine: float = 0.0  # leave out frames whose forces have a smaller cosine with those of cosine_key

    @property
    def label(self) -> str:
        stem = Path(self.file or self.shards).name.split(".")[0]
        return self.name or stem.translate(str.maketrans("", "", "*?[]")) or self.head


@dataclass(frozen=True)
class Stage:
    """One stretch of training: linear warm-up, then a half cosine down to ``final_rate`` of the learning rate."""

    steps: int
    learning_rate: float = 3e-3
    final_rate: float = 0.01
    warmup: int = 300
    schedule: str = "cosine"  # or "onecycle", "constant"
    decay_steps: int | None = None  # length of the cosine; longer than the stage, it ends at a higher rate
    energy_weight: float = 5.0
    energy_weight_late: float = 40.0
    late_fraction: float = 0.3  # last part of the stage, with the late energy weight
    force_weight: float = 1.0
    stress_weight: float = 0.0
    mixture: tuple[float, ...] | None = None  # probability of each data source; None: by their weights


@dataclass(frozen=True)
class Batching:
    """What one pack (one forward pass) may hold; a step takes ``packs`` of them, shared out among the processes."""

    atoms: int | None = None
    edges: int | None = None  # directed pairs within the cutoff
    structures: int | None = None
    packs: int = 1
    by_width: bool = True  # structures of like width together, which saves padding; false: as drawn, all sizes mixed


@dataclass(frozen=True)
class Optimiser:
    """Adam, gradients clipped relative to their own running norm, averaged weights."""

    seed: int = 0
    matrices: str = "adam"  # or "muon": momentum made orthogonal for matrices, Adam for everything else
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0  # decoupled (AdamW); matrices only, no biases, norms or embeddings
    clip: float = 1.5  # times the running mean of the gradient norm
    clip_norm: float | None = None  # largest norm, in place of the relative clip
    ema: float = 0.999
    skip_at_most: int = 20  # steps in a row whose gradient is not finite; one more ends the run
    validate_every: int = 2000
    validate_frames: int | None = None  # per source; the last validation, and that of a start, take all
    checkpoint_every: int = 500
    tf32: bool = False
    bf16: bool = False


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
    optimiser: Optimiser
    stages: tuple[Stage, ...]
    data: tuple[DataSource, ...]
    reference_note: str
    reference_prior: dict[str, float] = field(default_factory=dict)  # symbol -> eV, completes least squares
    references: dict = field(default_factory=dict)  # head -> symbol -> eV: given, not fitted
    batch: Batching = field(default_factory=lambda: Batching(structures=1))
    objective: dict = field(default_factory=lambda: {"name": "energy-forces"})
    charges: tuple[int, ...] = (0,)
    spins: tuple[int, ...] = ()  # empty: the model does not look at them
    periodic: str = ""  # "refused": single molecules only, so cards refuse boxes; empty: by what the data have
    start: str = ""  # weights to begin with: a folder, or a name of the registry
    copy_heads: dict[str, str] = field(default_factory=dict)  # new head -> head of the start to begin with
    kept_heads: tuple[str, ...] = ()  # heads of the start that no [[data]] trains, last in the order of preference
    trains: str = "all"  # "heads": the rest stays as it was; "lora": heads, and low-rank updates of the rest
    lora_rank: int = 4

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(source.head for source in self.data), *self.kept_heads]))

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage that ``step`` falls into, and the step counted from that stage's start."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], step + self.stages[-1].steps


def read_recipe(path: Path) -> Recipe:
    """Parse and check a recipe.

    Raises:
        InputError: missing file, bad TOML, a key that is missing, unknown or without a say, or a value that cannot be
            (named with its table).
    """
    table = read_recipe_table(path, RECIPES)
    _check_of_use(table, path)
    if table.get("family") == "atom":
        raise InputError(f"recipe '{path}' makes a decoder, no potential; train it with: omnicalc decoder train {path}")
    from omnicalc.training.objectives import needs_labels

    optimiser = strict(Optimiser, table.pop("optimiser", {}), f"[optimiser] of '{path}'")
    stages = tuple(strict(Stage, t, f"[[stages]] of '{path}'") for t in _tables(table, "stages", path))
    if "batch" in table:
        table["batch"] = batch = strict(Batching, table["batch"], f"[batch] of '{path}'")
        if batch.atoms is None and batch.edges is None and batch.structures is None:
            raise InputError(f"[batch] of '{path}' sets no limit; give atoms, edges or structures")
    sources = tuple(strict(DataSource, t, f"[[data]] of '{path}'") for t in _tables(table, "data", path))
    if not sources or not stages:
        raise InputError(f"recipe '{path}' needs at least one [[data]] (a labelled file) and one [[stages]]")
    for stage in stages:
        if stage.decay_steps is not None and stage.decay_steps < stage.steps:  # past its end a cosine rises again
            raise InputError(
                f"decay_steps = {stage.decay_steps} in [[stages]] of '{path}' is less than steps = {stage.steps}; give "
                "at least as many, or leave it out"
            )
        if stage.mixture is not None and len(stage.mixture) != len(sources):
            raise InputError(f"mixture in '{path}' lists {len(stage.mixture)} numbers for {len(sources)} [[data]]")
    if sum(source.weight for source in sources) <= 0:
        raise InputError(f"the weights of all [[data]] of '{path}' are 0; at least one above 0 is needed")
    for source in sources:
        if bool(source.file) == bool(source.shards):
            raise InputError(f"[[data]] of '{path}' for head '{source.head}': give file or shards, and not both")
        if not (source.energies or source.forces) and needs_labels(table.get("objective", {})):
            raise InputError(f"[[data]] '{source.label}' of '{path}' learns from neither energies nor forces")
    labels = [source.label for source in sources]
    if len(set(labels)) < len(labels):
        raise InputError(f"[[data]] of '{path}' have the names {', '.join(labels)}; give each a name of its own")
    return strict(Recipe, {**table, "optimiser": optimiser, "stages": stages, "data": sources}, f"'{path}'")


def _check_of_use(table: dict, path: Path) -> None:
    """Refuse keys that have no say beside what else their table says: another value of that was meant."""

    def refuse(part: object, keys: tuple[str, ...], header: str, why: str) -> None:
        found = [key for key in keys if isinstance(part, dict) and key in part]
        if found:
            raise InputError(f"{found[0]} in {header}'{path}' has no say {why}, or leave {found[0]} out")

    def says(part: object, key: str, usual: str) -> object:
        return part.get(key, usual) if isinstance(part, dict) else usual

    def parts(key: str) -> list:
        found = table.get(key, [])
        return found if isinstance(found, list) else []

    if table.get("trains") != "lora":
        refuse(table, ("lora_rank",), "", 'without LoRA; set trains = "lora"')
    if "clip_norm" in (table.get("optimiser") or ()):
        refuse(table["optimiser"], ("clip",), "[optimiser] of ", "beside clip_norm; leave that out")
    if says(table.get("objective"), "loss", "") != "huber":
        refuse(table.get("objective"), ("huber_delta",), "[objective] of ", 'with this loss; set loss = "huber"')
    for stage in parts("stages"):
        if says(stage, "schedule", "cosine") == "constant":
            why = 'in a constant schedule; set schedule = "cosine"'
            refuse(stage, ("final_rate", "decay_steps"), "[[stages]] of ", why)
    for source in parts("data"):
        if says(source, "split_by", "key") == "key":
            why = 'where the key split of the frames decides; set split_by = "molecule" or "frame"'
            refuse(source, ("valid_fraction",), "[[data]] of ", why)
        if not says(source, "cosine_key", ""):
            refuse(source, ("min_cosine",), "[[data]] of ", "without forces to compare with; name them by cosine_key")


RECIPES = Path(__file__).parent / "recipes"


def find_recipe(name: str) -> Path:
    """A path as given, or the shipped recipe of that name."""
    return find_shipped(name, RECIPES)


def _tables(table: dict, key: str, path: Path) -> list:
    tables = table.pop(key, [])
    if not isinstance(tables, list):
        raise InputError(f"{key} in '{path}' is one table; write its header as [[{key}]]")
    return tables


def strict(kind: type, table: object, where: str):
    """See :func:`omnicalc.toml_table.strict`."""
    return toml_table.strict(kind, table, where, RANGES)
