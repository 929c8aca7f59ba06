"""What the values of a recipe must be, beside the types that are annotated: see :func:`omnicalc.toml_table.strict`."""

import re
from pathlib import PurePosixPath

from omnicalc.card import NAME_PART
from omnicalc.toml_table import ABOVE_0, AT_LEAST_1, FRACTION, NOT_NEGATIVE, SEED, one_of


def known_elements(prior: dict) -> bool:
    """Whether all keys are symbols of elements."""
    from ase.data import atomic_numbers

    return all(atomic_numbers.get(symbol, 0) > 0 for symbol in prior)


def _plain_name(file: str) -> bool:
    """A name below the data folder: no pattern, no way out of it."""
    path = PurePosixPath(file)
    return path.name != "" and not path.is_absolute() and ".." not in path.parts and not set(file) & set("*?[]\\")


_PART = (NAME_PART.fullmatch, "a name of letters, digits, '.', '_' and single '-'")
_LENGTH = (lambda x: x > 0, "a length above 0 Å")
_RATE = (lambda x: 0 < x <= 1, "a number above 0 and at most 1")  # beyond, weights are lost in a step
_BELOW_1 = (lambda x: 0 <= x < 1, "a number from 0 to below 1")
_SOME = (bool, "a list of at least one molecule")


RANGES = {
    ("DataSource", "file"): (lambda x: not x or _plain_name(x), "the name of a file below the data folder"),
    ("DataSource", "sha256"): (re.compile("([0-9a-f]{64})?").fullmatch, "64 hexadecimal digits (sha256sum FILE)"),
    ("DataSource", "split_by"): (lambda x: x in ("key", "molecule", "frame"), "'key', 'molecule' or 'frame'"),
    ("DataSource", "valid_fraction"): (lambda x: 0 < x < 1, "a number between 0 and 1"),
    ("DataSource", "limit"): AT_LEAST_1,
    ("DataSource", "max_force"): ABOVE_0,
    ("DataSource", "replay"): NOT_NEGATIVE,
    ("DataSource", "min_cosine"): (lambda x: -1 <= x < 1, "a number from -1 to below 1"),
    ("DataSource", "head"): (bool, "a name"),
    ("DataSource", "weight"): NOT_NEGATIVE,
    ("Stage", "steps"): AT_LEAST_1,
    ("Stage", "learning_rate"): _RATE,
    ("Stage", "final_rate"): FRACTION,
    ("Stage", "warmup"): AT_LEAST_1,
    ("Stage", "energy_weight"): NOT_NEGATIVE,
    ("Stage", "energy_weight_late"): NOT_NEGATIVE,
    ("Stage", "late_fraction"): FRACTION,
    ("Stage", "force_weight"): NOT_NEGATIVE,
    ("Stage", "stress_weight"): NOT_NEGATIVE,
    ("Stage", "schedule"): (lambda x: x in ("cosine", "onecycle", "constant"), "'cosine', 'onecycle' or 'constant'"),
    ("Stage", "mixture"): (
        lambda shares: bool(shares) and min(shares) >= 0 and sum(shares) > 0,
        "a list of numbers of 0 or more, not all 0,",
    ),
    ("Optimiser", "seed"): SEED,
    ("Optimiser", "matrices"): (lambda x: x in ("adam", "muon"), '"adam" or "muon"'),
    ("Optimiser", "betas"): (lambda x: all(0 <= b < 1 for b in x), "two numbers from 0 to below 1"),
    ("Batching", "atoms"): AT_LEAST_1,
    ("Batching", "edges"): AT_LEAST_1,
    ("Batching", "structures"): AT_LEAST_1,
    ("Batching", "packs"): AT_LEAST_1,
    ("Optimiser", "weight_decay"): NOT_NEGATIVE,
    ("Optimiser", "clip"): ABOVE_0,
    ("Optimiser", "clip_norm"): ABOVE_0,
    ("Optimiser", "skip_at_most"): NOT_NEGATIVE,
    ("Optimiser", "validate_frames"): AT_LEAST_1,
    ("Optimiser", "ema"): _BELOW_1,
    ("Optimiser", "validate_every"): AT_LEAST_1,
    ("Optimiser", "checkpoint_every"): AT_LEAST_1,
    ("Recipe", "name"): _PART,
    ("Recipe", "tag"): _PART,
    ("Recipe", "version"): _PART,
    ("Recipe", "reference_prior"): (known_elements, "a table from element symbols such as H to energies in eV"),
    ("Recipe", "trains"): (lambda x: x in ("all", "heads", "lora"), "'all', 'heads' or 'lora'"),
    ("Recipe", "lora_rank"): AT_LEAST_1,
    ("Recipe", "periodic"): (lambda x: x in ("", "refused"), "'refused', or no such key,"),
    ("Recipe", "charges"): (bool, "a list of at least one whole number"),
    ("DecoderRecipe", "name"): _PART,
    ("DecoderRecipe", "tag"): _PART,
    ("DecoderRecipe", "version"): _PART,
    ("DecoderRecipe", "molecules"): _SOME,
    ("DecoderRecipe", "validation"): _SOME,
    ("DecoderRecipe", "objective"): one_of("s2t", "s2s"),
    ("DecoderRecipe", "optimiser"): one_of("muon", "adamw"),
    ("DecoderRecipe", "learning_rate"): _RATE,
    ("DecoderRecipe", "weight_decay"): NOT_NEGATIVE,
    ("DecoderRecipe", "warmup"): AT_LEAST_1,
    ("DecoderRecipe", "steps"): AT_LEAST_1,
    ("DecoderRecipe", "batch"): AT_LEAST_1,
    ("DecoderRecipe", "frames"): AT_LEAST_1,
    ("DecoderRecipe", "shortest"): ABOVE_0,
    ("DecoderRecipe", "longest"): ABOVE_0,
    ("DecoderRecipe", "clip"): ABOVE_0,
    ("DecoderRecipe", "ema"): _BELOW_1,
    ("DecoderRecipe", "seed"): SEED,
    ("DecoderRecipe", "spacing_fs"): NOT_NEGATIVE,
    ("DecoderRecipe", "train_part"): (lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    ("DecoderRecipe", "validate_every"): AT_LEAST_1,
    ("DecoderRecipe", "save_every"): AT_LEAST_1,
    ("EnergyForcesSettings", "loss"): one_of("atoml2mae", "l2mae", "mae", "total-mae", "huber", "mse"),
    ("EnergyForcesSettings", "huber_delta"): ABOVE_0,
    ("EnergyForcesDenoisingSettings", "noise"): NOT_NEGATIVE,
    ("EnergyForcesDenoisingSettings", "denoising_weight"): NOT_NEGATIVE,
    ("EnergyForcesDenoisingSettings", "first_drop_path"): _BELOW_1,
    ("EnergyForcesDenoisingSettings", "last_drop_path"): _BELOW_1,
    ("ForceDenoisingSettings", "noise"): _LENGTH,
    ("PropertySettings", "loss"): one_of("mse", "mae"),
    ("PropertySettings", "scale"): ABOVE_0,
    ("PropertySettings", "noise"): _LENGTH,
    ("PropertySettings", "denoising_weight"): NOT_NEGATIVE,
    ("NoiseSettings", "clean_noise"): (lambda x: x >= 0, "a length of 0 Å or more"),
    ("NoiseSettings", "corrupt_noise"): (lambda x: x >= 1e-6, "a length of at least 1e-06 Å"),
    ("NoiseSettings", "most_atoms"): AT_LEAST_1,
    ("PretrainingSettings", "pockets"): one_of("none", "pocket", "ligand", "mixed"),
    ("PretrainingSettings", "residues"): AT_LEAST_1,
    ("PretrainingSettings", "shift"): (lambda x: x >= 0, "a length of 0 Å or more"),
}
