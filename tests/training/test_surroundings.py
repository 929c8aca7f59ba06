"""What stood around atoms in the training data goes beside the weights."""

from dataclasses import replace

import numpy as np
from ase.io import read, write

from omnicalc.known_surroundings import FILE, read_known, write_known
from omnicalc.training.export import export
from omnicalc.training.fine_tune import FineTune, fine_tune_recipe
from omnicalc.training.surroundings import known_of, write_surroundings
from omnicalc.training.trainer import Trainer
from tests.training.toy import trainer, water


def test_bounds_of_training_frames_alone(folder):
    """By hand, of the frames of the split; the others have none of it."""
    work = trainer(folder, steps=2, every=2)
    work.prepare(resume=False)
    card = export(work, folder / "weights")
    told = []
    write_surroundings(work.dataset, card, folder / "weights", progress=lambda *how_far: told.append(how_far))
    (known,) = read_known(folder / "weights" / FILE).values()
    frames = [a for a in read(folder / "frames.extxyz", ":") if a.info["split"] == "train"]
    assert told == [(k, len(frames)) for k in range(1, len(frames) + 1)]
    bonds, closest = [], []
    for atoms in frames:
        oh = atoms.get_all_distances()[np.ix_(atoms.numbers == 8, atoms.numbers == 1)]
        bonds.append((oh < 1.3 * 0.97).sum(axis=1))
        closest.append(oh.min())
    assert known.elements == (1, 8) and np.isinf(known.shell).all()  # none is periodic
    assert known.least[1, 0] == np.concatenate(bonds).min() and known.most[1, 0] == np.concatenate(bonds).max()
    assert known.closest[0, 1] == known.closest[1, 0] == round(min(closest), 3)


def test_the_most_extreme_of_two_thousand_frames_is_left_out(folder):
    """Of 999 none is."""
    work = trainer(folder, steps=2, every=2)
    source, head = work.dataset.sources[0], export(work, folder / "weights").heads[0]
    entry, usual = source.train[0], source.files[0][source.train[0].frame]
    squeezed = usual.copy()
    squeezed.positions *= 0.5
    source.paths = [folder / f"{k}" for k in range(1000)]
    for count in (999, 1000):
        source.files = [[squeezed], *[[usual]] * (count - 1)]
        source.train = [type(entry)(**{**_slots(entry), "file": k, "frame": 0}) for k in range(count)]
        found = known_of([source, source], head).closest[0, 1]  # two sources of one file count once
        nearest = usual.get_all_distances()[usual.numbers == 8][:, usual.numbers == 1].min()
        assert np.isclose(found, nearest * (0.5 if count == 999 else 1.0))


def test_sources_of_broken_structures_widen_nothing(folder):
    work = trainer(folder, steps=2, every=2)
    card = export(work, folder / "weights")
    (source,) = work.dataset.sources
    source.settings = replace(source.settings, surroundings=False)
    told = []
    write_surroundings(work.dataset, card, folder / "weights", progress=lambda *how_far: told.append(how_far))
    assert not told and not (folder / "weights" / FILE).exists()


def _slots(entry) -> dict:
    return {name: getattr(entry, name) for name in entry.__slots__}


def test_heads_that_go_on_know_the_old_data_too(folder, tmp_path):
    work = trainer(folder, steps=2, every=2)
    work.prepare(resume=False)
    start = folder / "weights"
    card = export(work, start)
    write_surroundings(work.dataset, card, start)
    old = read_known(start / FILE)
    known = old["toy-theory"]
    known.most[:] = 7
    frames = [water(np.random.default_rng(k), 1) for k in range(8)]
    write(tmp_path / "mine.extxyz", frames)
    for there in (True, False):
        write_known(start / FILE, old) if there else (start / FILE).unlink()
        recipe = fine_tune_recipe(FineTune(str(start), tmp_path / "mine.extxyz", replay="none"))
        tuned = Trainer(recipe, tmp_path, tmp_path / f"{there}")
        out = tmp_path / f"{there}" / "weights"
        write_surroundings(tuned.dataset, export(tuned, out), out, recipe)
        found = read_known(out / FILE)
        assert set(found) == ({*recipe.heads} if there else set())  # bounds of a few frames alone would be too narrow
        assert all((bounds.most == 7).all() for bounds in found.values())
