"""A published checkpoint of any family to weights under a name of ours; the file itself says which family it is."""

import zipfile
from pathlib import Path

from omnicalc.errors import InputError, WeightsError
from omnicalc.fairchem_checkpoint import is_fairchem
from omnicalc.published_weights import Imported, Source, import_published


def import_file(
    file: Path,
    config_file: Path | None,
    name: str,
    *,
    smooth: bool = False,
    zero_references: bool = False,
    source: Source | None = None,
) -> Imported:
    """Convert ``file``: SCD's training checkpoints end in .ckpt, AllScAIP's hold fairchem's parts, all others are taken
    as UBio-MolFM's, whose settings are in ``config_file``, by default the config.yaml beside the file.

    Raises:
        WeightsError, InputError: see :func:`omnicalc.published_weights.import_published` and its like for the others;
            damaged files, options that a family does not have, checkpoints that are no potential of any family here.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    _check_whole(file)
    if file.suffix == ".ckpt":
        from omnicalc.published_scd import import_scd

        if smooth or zero_references:
            raise InputError("--smooth and --zero-references are for UBio-MolFM checkpoints; SCD ones have no energy")
        return import_scd(file, name, config_file, source=source)
    options = {"smooth": smooth, "zero_references": zero_references, "source": source}
    if is_fairchem(file):
        from omnicalc.published_allscaip import import_allscaip

        return import_allscaip(file, name, **options)
    if _is_omnilearned(file):
        raise WeightsError(
            f"{file} is an OmniLearned checkpoint: it was trained on jets and has no energies of molecules; an OMNIMOL "
            "network can begin with it, see omnicalc.models.omnimol.published.transfer"
        )
    return import_published(file, config_file or file.with_name("config.yaml"), name, **options)


def _check_whole(file: Path) -> None:
    """Raise :class:`WeightsError` for an archive whose checksums do not fit its bytes: ``torch.load`` never looks."""
    if not zipfile.is_zipfile(file):
        return  # of another form, or cut off: the readers say so
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        broken = str(error)
    if broken is not None:
        raise WeightsError(f"{file}: damaged: checksums do not fit the bytes ({broken}); copy or download it again")


def _is_omnilearned(file: Path) -> bool:
    """By the names of its parts in the archive's pickle, which is not run."""
    try:
        with zipfile.ZipFile(file) as archive:
            content = archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))
    except (OSError, zipfile.BadZipFile, StopIteration):
        return False
    return b"classifier_head" in content and b"body" in content
