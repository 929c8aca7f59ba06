"""Ligand binding affinities of ATOM3D (Townshend et al., arXiv:2012.04035): an LMDB of gzipped JSON items.

An item has tables of atoms (``atoms_pocket``, ``atoms_ligand``, ``atoms_protein``: columns and rows), and
``scores.neglog_aff``, minus the decadic logarithm of the dissociation or inhibition constant.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from omnicalc.data.protocols import finite_number
from omnicalc.errors import InputError

TARGET = "neglog_aff"


def read_lba(path: Path | str) -> Iterator[Atoms]:
    """Pocket and ligand as one structure each, the ligand last.

    ``arrays``: ``ligand`` (bool) and ``residue`` (a number for each residue, -1 in the ligand); ``info``: the affinity
    under "neglog_aff" and the complex under "molecule". Atoms of unknown element are an error that names them.

    Raises:
        InputError: another file, or an item that is no complex with atoms at finite positions and a finite affinity.
    """
    for k, item in enumerate(_items(Path(path))):
        name = str(item.get("id", "?")) if isinstance(item, dict) else f"of item {k}"
        try:
            protein, residue = _atoms(item["atoms_pocket"], name)
            ligand, _ = _atoms(item["atoms_ligand"], name)
            value = item["scores"][TARGET]
        except InputError:
            raise
        except KeyError as error:
            raise InputError(f"{path}: complex {name} has no {error}; an LMDB of ATOM3D's LBA task is needed") from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"{path}: complex {name} is no item of ATOM3D's LBA task ({error})") from None
        value = finite_number(value, f"{path}: complex {name}: its {TARGET}")
        atoms = protein + ligand
        atoms.arrays["ligand"] = np.arange(len(atoms)) >= len(protein)
        atoms.arrays["residue"] = np.concatenate([residue, np.full(len(ligand), -1)])
        atoms.info = {TARGET: value, "molecule": name, "charge": 0}
        yield atoms


def _items(path: Path) -> Iterator[dict]:
    if not path.exists():
        raise InputError(f"{path}: no such file; the LMDB folder of one split of ATOM3D's LBA task is needed")
    try:
        import lmdb
    except ImportError:
        raise InputError("reading ATOM3D files needs lmdb; type: pip install 'omnicalc[train]'") from None
    try:
        env = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
    except lmdb.Error as error:
        raise InputError(f"{path}: not an LMDB ({error})") from None
    with env, env.begin() as txn:
        count, form = txn.get(b"num_examples"), txn.get(b"serialization_format")
        if count is None or form is None:
            raise InputError(f"{path}: an LMDB, but not one of ATOM3D (no num_examples or serialization_format)")
        if form != b"json":
            raise InputError(f"{path}: items are stored as {form.decode()}; those stored as json can be read")
        for k in range(int(count)):
            content = txn.get(str(k).encode())
            if content is None:
                raise InputError(f"{path}: item {k} of {int(count)} is missing, so this copy is not whole")
            try:
                item = json.loads(gzip.decompress(content))
            except (OSError, EOFError, zlib.error, ValueError) as error:
                raise InputError(f"{path}: item {k} is no gzipped JSON ({error})") from None
            yield item


def _atoms(table: dict, name: str) -> tuple[Atoms, np.ndarray]:
    """Atoms of a table, and a number for the residue of each."""
    columns = {key: [row[k] for row in table["data"]] for k, key in enumerate(table["columns"])}
    symbols = [str(s).strip().capitalize() for s in columns["element"]]
    unknown = sorted({s for s in symbols if atomic_numbers.get(s, 0) < 1})
    if unknown:
        raise InputError(f"complex {name}: unknown element {', '.join(unknown)}")
    positions = np.array([columns[axis] for axis in "xyz"], dtype=float).T
    if not symbols or not np.isfinite(positions).all():
        raise InputError(f"complex {name}: pocket and ligand with atoms at finite positions are needed")
    keys = [columns.get(key, [""] * len(symbols)) for key in ("chain", "residue", "insertion_code")]
    labels = ["|".join(map(str, row)) for row in zip(*keys, strict=True)]
    numbers = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return Atoms(symbols, positions), np.array([numbers[label] for label in labels], dtype=int)
