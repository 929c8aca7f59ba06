"""A published checkpoint of any family to weights under a name of ours; the file itself says which family it is."""

from pathlib import Path

from omnicalc.errors import InputError, WeightsError
from omnicalc.published.container import check_whole, mentions
from omnicalc.published.fairchem import is_fairchem
from omnicalc.published.install import Imported, Source


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
        WeightsError, InputError: see :func:`omnicalc.published.ubio.import_ubio` and its like for the others;
            damaged files, options that a family does not have, checkpoints that are no potential of any family here.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    check_whole(file)
    if file.suffix == ".ckpt":
        from omnicalc.published.scd import import_scd

        if smooth or zero_references:
            raise InputError("--smooth and --zero-references are for UBio-MolFM checkpoints; SCD ones have no energy")
        return import_scd(file, name, config_file, source=source)
    options = {"smooth": smooth, "zero_references": zero_references, "source": source}
    if is_fairchem(file):
        if config_file is not None:
            raise InputError(f"{file} holds its settings, so {config_file} would not be read; leave --config out")
        from omnicalc.published.allscaip import import_allscaip

        return import_allscaip(file, name, **options)
    if mentions(file, "classifier_head", "body"):
        raise WeightsError(
            f"{file} is an OmniLearned checkpoint: it was trained on jets and has no energies of molecules; an OMNIMOL "
            "network can begin with it, see omnicalc.models.omnimol.published.transfer"
        )
    from omnicalc.published.ubio import import_ubio

    return import_ubio(file, config_file or file.with_name("config.yaml"), name, **options)
