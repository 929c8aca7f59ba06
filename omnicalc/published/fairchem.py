"""The container of published fairchem checkpoints, read without running anything that is in it.

A checkpoint is a pickled object with ``model_config``, ``model_state_dict``, ``ema_state_dict`` and ``tasks_config``,
of classes that are not installed here, and a pickle may name any function to be called. So every class and function
but those that make tensors is replaced by an inert stand-in, which keeps what it is given and does nothing; tensors,
numbers, texts, lists and tables come out as they are.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from omnicalc.errors import InputError, WeightsError
from omnicalc.models.published_tensors import checked_tensors
from omnicalc.published.container import mentions, not_a_checkpoint

PARTS = ("model_config", "model_state_dict", "ema_state_dict", "tasks_config")
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", name) for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")),
    *(("torch", f"{kind}Storage") for kind in ("Half", "BFloat16", "Float", "Double", "Int", "Long", "Byte", "Bool")),
}


class StandIn:
    """In the place of an object whose class or function was not called: keeps arguments, state and items."""

    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls)
        made._args, made._items, made._list = args, {}, []
        return made

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self._items.update(part)

    def __setitem__(self, key, value):
        self._items[key] = value

    def append(self, value):
        self._list.append(value)

    def extend(self, values):
        self._list.extend(values)

    def __call__(self, *args, **kwargs):
        return StandIn(*args)

    def __hash__(self):
        return id(self)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        return super().find_class(module, name) if (module, name) in _ALLOWED else StandIn


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=None, __name__=__name__)


def is_fairchem(path: Path) -> bool:
    """Whether a file looks like such a checkpoint: a torch archive whose pickle speaks of its parts."""
    return mentions(path, "ema_state_dict", "model_config")


def read_checkpoint(path: Path) -> dict:
    """The parts of a checkpoint as plain tables.

    Raises:
        InputError: no such file.
        WeightsError: a file that is no such checkpoint, or lacks a part.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if _is_script(path):
        raise WeightsError(f"{path}: refused, because it is a TorchScript program, and loading that could run code")
    try:
        container = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except Exception as error:  # whatever torch's readers make of bytes that are no checkpoint
        raise not_a_checkpoint(path, error) from None
    parts = plain(container)
    missing = [part for part in PARTS if not isinstance(parts, Mapping) or part not in parts]
    if missing:
        raise WeightsError(f"{path}: not a published fairchem checkpoint: {', '.join(missing)} missing")
    return dict(parts)


def _is_script(path: Path) -> bool:
    """Whether ``torch.load`` would hand the archive to the loader of programs, past the stand-ins."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def plain(value: object) -> object:
    """Tables, lists, tensors and plain values: objects become tables of their attributes, wrappers what they wrap."""
    if isinstance(value, StandIn):
        for wrapped in ("_content", "_val"):  # omegaconf's tables and values
            if wrapped in value._items:
                return plain(value._items[wrapped])
        if value._items:
            return plain(value._items)
        if value._list or not value._args:
            return plain(value._list)
        return plain(value._args[-1] if len(value._args) == 1 else list(value._args))
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def ema_tensors(parts: Mapping, path: Path) -> dict[str, Tensor]:
    """The averaged tensors, without the count of averages and the prefixes that training wrappers put before names.

    Raises:
        WeightsError: entries that are no tensors, no tensors at all, or two that come to have one name.
    """
    tensors = {}
    for key, value in dict(parts["ema_state_dict"] or {}).items():
        if key == "n_averaged":
            continue
        while key.startswith("module."):
            key = key.removeprefix("module.")
        if key in tensors:
            raise WeightsError(f"{path}: 'ema_state_dict' has two tensors that are called {key} without prefix")
        tensors[key] = value
    return checked_tensors(tensors, "ema_state_dict", path)
