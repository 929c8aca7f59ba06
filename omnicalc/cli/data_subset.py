"""``omnicalc data subset``: a part of many frames, spread over classes and molecules."""

from pathlib import Path

import click

from omnicalc.cli.options import FiniteRange, NewFile


@click.command(name="subset")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=NewFile(), required=True,
              help="File: .extxyz or .extxyz.gz (extended XYZ), or .aselmdb (ASE-LMDB).")  # fmt: skip
@click.option("--only", metavar="KEY=VALUE,...", multiple=True, help="Only frames whose key has one of these values.")
@click.option("--count", type=click.IntRange(min=1), help="At most so many frames.")
@click.option("--max-atoms", type=click.IntRange(min=1), help="Leave larger frames out.")
@click.option("--max-force", type=FiniteRange(min=0), help="Leave frames with a larger force out, eV/Å.")
@click.option("--charge", type=int, help="Only frames of this total charge.")
@click.option("--elements", metavar="SYMBOLS", help="Leave frames with other elements out, as in 'H C N O'.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def command(files, out, only, count, max_atoms, max_force, charge, elements, seed):
    """Take frames of FILES in turn from every config_type, and there in turn from every molecule.

    Those of one key= and geometry are one. Every first part of the result is spread over all classes, as labelling may
    be stopped at any time.
    """
    from collections import Counter

    from omnicalc.errors import InputError
    from omnicalc.structure_file import read_structures

    if not out.name.endswith((".extxyz", ".xyz", ".extxyz.gz", ".xyz.gz", ".aselmdb")):  # readers go by the ending
        raise InputError(
            f"--out {out}: frames are written as extended XYZ or ASE-LMDB; let the name end in .extxyz, .extxyz.gz or "
            ".aselmdb"
        )
    frames = [atoms for path in files for atoms in read_structures(path)]

    from omnicalc.data import only as by_keys
    from omnicalc.data.subset import Limits, subset, write_frames

    limits = Limits(max_atoms, max_force, charge, _symbols(elements))
    allowed = by_keys.only(frames, only, ", ".join(map(str, files)))
    chosen = subset(allowed, count, limits, seed)
    if not chosen:
        raise InputError(f"none of {len(allowed)} frames is within --max-atoms, --max-force, --charge and --elements")
    write_frames(out, chosen)
    shares = Counter(str(atoms.info.get("config_type", "no config_type")) for atoms in chosen)
    click.echo(f"{len(chosen)} of {len(frames)} frames: {', '.join(f'{k} {n}' for k, n in sorted(shares.items()))}")


def _symbols(elements: str | None) -> frozenset[str] | None:
    if elements is None:
        return None
    from ase.data import chemical_symbols

    from omnicalc.errors import InputError

    given = frozenset(elements.replace(",", " ").split())
    unknown = sorted(given - set(chemical_symbols[1:]))
    if unknown or not given:
        raise InputError(f"--elements '{elements}': {', '.join(unknown) or 'none'}; give symbols, as in 'H C N O'")
    return given
