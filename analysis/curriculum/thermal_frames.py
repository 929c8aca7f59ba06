"""Frames of dynamics at 300 to 500 K out of labelled ones, for a costlier level of theory.

    python -m analysis.curriculum.thermal_frames data/ubio-xtb.extxyz.gz --out thermal.extxyz
    python -m analysis.curriculum.thermal_frames data/ubio-xtb.extxyz.gz data/ubio-more-xtb.extxyz.gz --shares ions \\
        --out ions.extxyz
    omnicalc label thermal.extxyz ions.extxyz --grid 2 --convergence 1e-7 --out ubio-dft-md.extxyz

A label's cost goes with the square of the number of atoms, so each class has its own largest size: small molecules by
which a network learns, and test molecules as large as peptides and nucleic acids are. Test frames stand evenly among
training frames, so that a labelling which is stopped early leaves a fair part.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from ase import Atoms

from analysis.curriculum.learning_curve import DYNAMICS
from omnicalc.data.labels.key import label_key
from omnicalc.data.readers import open_frames
from omnicalc.data.subset import in_turn, write_frames
from omnicalc.errors import InputError


@dataclass(frozen=True)
class Share:
    """How many frames of a class, of which sizes."""

    split: str
    config_type: str
    frames: int
    most_atoms: int
    least_atoms: int = 1


ALL_CLASSES = (
    Share("train", "peptide", 16, 14),
    Share("train", "peptide", 12, 22, 15),
    Share("train", "nucleic", 10, 22),
    Share("train", "nucleic-water", 2, 22),
    Share("train", "ion-phosphate", 8, 14),
    Share("train", "ion-phosphate", 6, 20, 15),
    Share("train", "ion-site", 8, 16),
    Share("train", "peptide-water", 6, 16),
    Share("train", "peptide-water", 2, 22, 17),
    Share("train", "ion", 8, 16),
    Share("train", "water", 6, 16),
    Share("train", "drug", 4, 14),
    Share("train", "drug-water", 2, 16),
    Share("test", "peptide", 4, 32),
    Share("test", "nucleic", 1, 29),
    Share("test", "water", 2, 24),
    Share("test", "ion", 8, 14),
    Share("test", "ion-phosphate", 5, 16),
    Share("valid", "peptide", 4, 16),
    Share("valid", "ion", 2, 16),
)

IONS = (  # where the first set left the largest errors
    Share("train", "ion", 30, 12),
    Share("train", "ion-phosphate", 14, 15),
    Share("train", "ion-site", 4, 14),
    Share("train", "nucleic", 3, 16),
    Share("train", "peptide", 3, 14),
)
PHOSPHATES = (
    Share("train", "ion-phosphate", 24, 18),
    Share("train", "ion", 16, 13),
    Share("train", "peptide", 20, 16),
    Share("train", "nucleic", 6, 18),
)

ORGANICS = (Share("train", "drug", 60, 11),)  # one frame of many molecules: bonds, cheaply

BROAD = (  # of ubio-broad: ions that lose a water before all
    Share("train", "ion", 60, 13),
    Share("train", "ion-phosphate", 50, 19),
    Share("train", "peptide", 50, 18),
    Share("train", "nucleic", 30, 20),
    Share("train", "ion-site", 30, 15),
    Share("train", "peptide-water", 6, 18),
    Share("train", "nucleic-water", 8, 20),
)

TESTS = (
    Share("test", "peptide", 5, 26),
    Share("test", "nucleic", 3, 29),
    Share("test", "ion", 6, 17),
    Share("test", "ion-phosphate", 3, 20),
    Share("test", "water", 3, 24),
)

DROPLETS = (  # water and ions alone, which cost seconds
    Share("train", "ion", 230, 14),
    Share("train", "ion", 50, 17, 15),
    Share("train", "water", 50, 9),
    Share("train", "water", 100, 18, 10),
    Share("train", "water", 12, 21, 19),
    Share("test", "ion", 24, 14),
    Share("test", "water", 6, 24),
)

SHARES = {
    "all": ALL_CLASSES,
    "ions": IONS,
    "phosphates": PHOSPHATES,
    "organics": ORGANICS,
    "broad": BROAD,
    "tests": TESTS,
    "droplets": DROPLETS,
}


def choose(frames: Sequence[Atoms], shares: Sequence[Share], rng: random.Random) -> list[Atoms]:
    """Frames of every share, in turn of each of its molecules: those to train and to test on evenly mixed, the few to
    validate on last.
    """
    thermal = [atoms for atoms in frames if atoms.info.get("origin") in DYNAMICS]
    chosen = {"train": [], "test": [], "valid": []}
    for share in shares:
        chosen[share.split] += _of_share(thermal, share, rng)
    for part in chosen.values():
        rng.shuffle(part)
    return _evenly(chosen["train"], chosen["test"]) + chosen["valid"]


def _of_share(frames: Sequence[Atoms], share: Share, rng: random.Random) -> list[Atoms]:
    molecules: dict[str, list[Atoms]] = defaultdict(list)
    for atoms in frames:
        info = atoms.info
        if (info.get("split"), info.get("config_type")) == (share.split, share.config_type) and (
            share.least_atoms <= len(atoms) <= share.most_atoms
        ):
            molecules[info["molecule"]].append(atoms)
    names = sorted(molecules)
    rng.shuffle(names)
    for part in molecules.values():
        rng.shuffle(part)
    return in_turn([molecules[name][::-1] for name in names])[: share.frames]


def _evenly(many: Sequence[Atoms], few: Sequence[Atoms]) -> list[Atoms]:
    """Both in their orders, ``few`` spread over ``many``."""
    places = [((k + 0.5) / len(part), atoms) for part in (many, few) for k, atoms in enumerate(part)]
    return [atoms for _, atoms in sorted(places, key=lambda pair: pair[0])]


def _structure(atoms: Atoms) -> str:
    return label_key(atoms, method="")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--shares", default="all", show_default=True, type=click.Choice(list(SHARES)), help="Which classes.")
@click.option(
    "--without",
    "known",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Labelled frames: their structures are left out. May be given again.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Extended XYZ, without labels.")
@click.option("--seed", default=20261126, show_default=True)
def main(files, shares, known, out, seed):
    """Of FILES: labelled frames of the curriculum, with the keys split, config_type, origin and molecule."""
    labelled = {_structure(atoms) for path in known for atoms in open_frames(path)}
    frames = [atoms for path in files for atoms in open_frames(path)]
    if labelled:
        frames = [atoms for atoms in frames if _structure(atoms) not in labelled]
    chosen = choose(frames, SHARES[shares], random.Random(seed))
    if not chosen:
        raise InputError(f"{', '.join(map(str, files))}: no frame has an origin of {', '.join(DYNAMICS)} and a split")
    for atoms in chosen:
        atoms.calc = None
    write_frames(out, chosen)
    click.echo(f"{len(chosen)} frames: {out}")


if __name__ == "__main__":
    main()
