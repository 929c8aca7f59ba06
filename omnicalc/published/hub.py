"""Published checkpoints from the Hugging Face hub: fetch the file, and its config where it has one, and check them.

Pinned by revision and sha256 where ``registry.toml`` knows them; else the newest revision is taken and the commit that
it was goes onto the card, with the sha256 of the files.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from omnicalc.errors import WeightsError
from omnicalc.files import sha256_of
from omnicalc.registry import Published, published, split_name


def known(name: str, **other: str | None) -> Published:
    """What is published under a name ("name:tag"), with other ``repository``, ``file``, ``config`` or ``revision``.

    Raises :class:`WeightsError` if nothing is known under that name and ``other`` does not say where it lies.
    """
    wanted, tag, version = split_name(name)
    given = {key: value for key, value in other.items() if value is not None}
    found = next((p for p in published() if (p.name, p.tag) == (wanted, tag) and version is None), None)
    if found is None and not {"repository", "file"} <= given.keys():
        names = ", ".join(f"{p.name}:{p.tag}" for p in published() if p.repository)
        raise WeightsError(
            f"nothing is known to be published as '{name}'; to be fetched by name: {names or 'none'}. For another "
            "checkpoint type: omnicalc models fetch NAME:TAG --repository OWNER/NAME --file FILE.pt"
        )
    if found is None or given.keys() & {"repository", "file", "config"}:  # not the files that are known by this name
        found = Published(wanted, tag or "", "", "", **(_places(found) or {"config": _usual_config(wanted, given)}))
    if given.get("revision", found.revision) != found.revision:
        found = replace(found, sha256="", config_sha256="")
    return replace(found, **given)


def _usual_config(name: str, given: dict[str, str]) -> str:
    """The config file that a checkpoint comes with: none where it holds its settings."""
    alone = given["file"].endswith(".ckpt") or any(p.name == name and not p.config for p in published())
    return "" if alone else Published.config


def fetch(wanted: Published, say: Callable[[str], object] = lambda line: None) -> tuple[Path, Path | None, str]:
    """Fetch and check the files of ``wanted``: paths of checkpoint and config, and the commit they are of.

    Raises :class:`WeightsError` when huggingface_hub is not installed, the hub cannot be reached or does not have the
    files, or they are not the ones that are pinned: always with the way round by hand.
    """
    say(f"fetching {_files(wanted)} of {wanted.repository}, revision {wanted.revision or 'newest'}")
    file, config, revision = _download(wanted)
    say(f"revision {revision}, recorded on the card")
    for path, pinned in ((file, wanted.sha256), (config, wanted.config_sha256)):
        if path is None:
            continue
        digest = sha256_of(path)
        if pinned and digest != pinned:
            raise WeightsError(
                f"{path} is not the file that OmniCalc knows: its sha256 is {digest}, pinned is {pinned}; nothing was "
                "imported. If it is damaged, remove it and fetch again; if the publisher replaced it and you want "
                f"that one: {_by_hand(wanted)}"
            )
        say(f"{path.name}: sha256 {digest}, {'as pinned' if pinned else 'not pinned, recorded on the card'}")
    return file, config, revision


def _download(wanted: Published) -> tuple[Path, Path | None, str]:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(
            f"fetching needs huggingface_hub; type: pip install huggingface_hub. {_by_hand(wanted)}"
        ) from None

    def download(name: str, revision: str) -> Path:
        return Path(hf_hub_download(repo_id=wanted.repository, filename=name, revision=revision or None))

    try:
        with _quiet():
            file = download(wanted.file, wanted.revision)
            revision = _commit(file) or wanted.revision
            config = None
        if wanted.config:
            config = download(wanted.config, revision)  # of the same commit, should the newest change meanwhile
    except Exception as error:  # the library's own errors, those of its HTTP library, and of the disk
        reason = " ".join((str(error).strip() or type(error).__name__).split())
        raise WeightsError(
            f"{wanted.repository} could not be fetched ({type(error).__name__}: {reason[:200]}). {_by_hand(wanted)}"
        ) from None
    return file, config, revision or "unknown"


@contextlib.contextmanager
def _quiet():
    """Without the library's line for every attempt: one message at the end says it all."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _places(found: Published | None) -> dict[str, str]:
    return {} if found is None else {key: getattr(found, key) for key in ("repository", "file", "config")}


def _commit(path: Path) -> str:
    """The commit in a path of the hub's cache, .../snapshots/COMMIT/FILE; empty for another path."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else ""


def _files(wanted: Published) -> str:
    return " and ".join(filter(None, (wanted.file, wanted.config)))


def _by_hand(wanted: Published) -> str:
    page = f"https://huggingface.co/{wanted.repository}"
    gate = (
        f"The repository is gated: accept its licence at {page}, make a token at "
        "https://huggingface.co/settings/tokens, type: hf auth login (or set HF_TOKEN), and fetch again. "
    )
    config = f" --config {Path(wanted.config).name}" if wanted.config else ""
    return (
        f"{gate if wanted.gated else ''}By hand: download {_files(wanted)} from {page} and "
        f"type: omnicalc models import {Path(wanted.file).name}{config} --as {wanted.name}:{wanted.tag}"
    )
