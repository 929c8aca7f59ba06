"""``state.pt``: all that a resumed run needs, and the rules of its folder."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from pickle import UnpicklingError

import torch

from omnicalc.errors import InputError, RunError
from omnicalc.files import not_writable, write_atomically
from omnicalc.training.recipe import Batching, DataSource, Optimiser, Recipe, Stage
from omnicalc.training.run_log import LOG

STATE, RECIPE = "state.pt", "recipe.json"
_DAMAGE = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError, UnpicklingError)
_ROUNDING = 1e-6  # relative


def save_state(path: Path, payload: dict) -> None:
    """Raises :class:`RunError` when it cannot be written; the file saved before is then still there."""
    content = io.BytesIO()
    torch.save(payload, content)
    with writing(path, path):
        write_atomically(path, lambda temporary: temporary.write_bytes(content.getbuffer()))


@contextmanager
def writing(path: Path, state: Path) -> Iterator[None]:
    """What cannot be written inside, at ``path``, becomes a :class:`RunError` that says how the run goes on."""
    try:
        yield
    except BrokenPipeError:  # of the output, not of a file
        raise
    except OSError as error:
        later = "the state saved before is still there. Make room, then go on with --resume"
        if not state.is_file():
            later = "no state was saved before. Make room, then start again with another --out"
        raise RunError(f"cannot write {path}: {error.strerror}; {later}") from None


def load_state(path: Path) -> dict:
    """Raises :class:`RunError` for a damaged file."""
    with refusing_damage(path):
        return torch.load(path, weights_only=True, map_location="cpu")


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """What fails inside, reading ``path`` or taking over what it holds, becomes a :class:`RunError` that names it."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise RunError(
            f"{path} is damaged and cannot be resumed from ({reason}); start again with another --out"
        ) from None


def check_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    """Raise :class:`InputError` when this run cannot be started or resumed in ``out``; needs no data and no model."""
    check_files(out, resume)
    if not resume:
        return
    with refusing_damage(out / RECIPE):
        before = _told(json.loads((out / RECIPE).read_text()))
    if not _same(before, _told(json.loads(as_json(recipe)))):
        raise InputError(f"the recipe differs from the one of '{out}' (see its {RECIPE}); use --out")


def check_files(out: Path, resume: bool) -> None:
    """Raise :class:`InputError` unless ``out`` is new or empty, or holds the files of a run that is to go on."""
    why = not_writable(out)
    if why is not None:
        raise InputError(f"{why}; give another folder with --out")
    if not resume:
        if out.exists() and any(out.iterdir()):
            raise InputError(f"'{out}' is not empty; continue it with --resume or choose another with --out")
        return
    lacking = [name for name in (STATE, RECIPE, LOG) if not (out / name).is_file()]
    if lacking:
        raise InputError(
            f"'{out}' holds no training run to resume (no {', no '.join(lacking)}); leave out --resume to start one"
        )


def _told(table: dict) -> dict:
    """A recipe without what it leaves at its defaults, so that keys which came later change nothing."""
    kinds = {"optimiser": Optimiser, "stages": Stage, "data": DataSource, "batch": Batching}
    found = {}
    for key, value in _without_defaults(table, Recipe).items():
        if key in kinds:
            parts = value if isinstance(value, list) else [value]
            value = [_without_defaults(part, kinds[key]) for part in parts]
        found[key] = value
    return found


def _without_defaults(table: dict, kind: type) -> dict:
    defaults = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    defaults |= {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}
    plain = json.loads(json.dumps(defaults, default=asdict))
    return {k: v for k, v in table.items() if k not in plain or plain[k] != v}


def _same(before: object, now: object) -> bool:
    """Equal but for rounding: reference energies that were fitted elsewhere differ in their last digits."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    if type(before) is type(now) is float:
        return math.isclose(before, now, rel_tol=_ROUNDING)
    return before == now


def as_json(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), indent=1, sort_keys=True)
