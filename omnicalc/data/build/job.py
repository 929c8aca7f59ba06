"""One job of a recipe: one start of one system, from its own seed to labelled frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.build.composition import molecules_of
from omnicalc.data.labels.entry import Timer, entry
from omnicalc.data.labels.label import LabelError
from omnicalc.data.labels.method import Method
from omnicalc.data.labels.xtb import Xtb, versions
from omnicalc.data.split import split_of
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.data.build.recipe import Recipe

METHOD = Method("")  # GFN2-xTB


@dataclass(frozen=True)
class Job:
    group: int
    system: str
    start: int

    def name(self, recipe: Recipe) -> str:
        group = recipe.groups[self.group]
        return f"{group.config_type}/{group.kind}/{self.system}/{self.start}"


def jobs(recipe: Recipe) -> list[Job]:
    """All jobs of a recipe, shuffled by its seed, so that any first part is spread over all groups."""
    found = [
        Job(k, f"{system} water*{waters}" if waters else system, start)
        for k, group in enumerate(recipe.groups)
        for system in group.systems
        for waters in group.waters
        for start in range(group.starts)
    ]
    np.random.default_rng(recipe.seed).shuffle(found)
    return found


def run_job(job: Job, recipe: Recipe) -> tuple[list[Atoms], list[str]]:
    """Labelled frames, and why others were left out. Depends on the recipe's seed and the job's name alone."""
    group, name = recipe.groups[job.group], job.name(recipe)
    seed = int.from_bytes(hashlib.sha256(f"{recipe.seed}|{name}".encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    if group.kind == "carve":
        from omnicalc.data.build.carve import carved_frames as make
    else:
        from omnicalc.data.build.sample import frames as make
    molecules = [] if group.kind == "carve" else molecules_of(job.system, recipe)
    labelled, left_out, xtb, program = [], [], Xtb(), versions()
    try:
        for atoms in make(job.system, group, recipe, job.start, rng):
            molecules = molecules or [atoms.info["molecule"]]  # a sphere says what it was cut from
            atoms.info |= {
                "config_type": group.config_type,
                "molecule": "+".join(molecules),
                "system": job.system,
                "split": recipe.only_split or split_of(molecules, recipe.split_salt, recipe.always_train),
            }
            atoms.positions = atoms.positions.round(recipe.decimals)  # before the label, which is then of what is kept
            timer = Timer()
            try:
                label = xtb(atoms)
            except LabelError as error:
                left_out.append(f"{name}: {atoms.info['origin']}: {error}")
                continue
            largest = float(np.linalg.norm(label.forces, axis=1).max())
            if largest > group.max_force:
                left_out.append(f"{name}: {atoms.info['origin']}: a force of {largest:.0f} eV/Å")
                continue
            label = replace(label, forces=label.forces.round(recipe.decimals))
            labelled.append(entry(atoms, label, METHOD, program, timer.stop()))
    except LabelError as error:
        left_out.append(f"{name}: ended after {len(labelled)} frames: {error}")
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return labelled, left_out
