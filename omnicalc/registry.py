"""From names to cards to weights: ``name``, ``name:tag``, ``name:tag@version``, or a weights folder's path.

``name:tag@version`` means one exact file; leaving out the version takes the newest that is bundled (of installed
weights there is one version per tag, or the name is refused), leaving out the tag takes the name's default tag
(``registry.toml``). Bundled weights lie in the package, installed ones, imported or fetched, in the user's weights
folder (:func:`omnicalc.weights_home.weights_home`). A name never silently becomes another model, nothing is ever
fetched from a network here, and weights whose sha256 is not their card's are refused.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.card import CARD, DECODER_CARD, WEIGHTS, Card, read_card
from omnicalc.errors import INSTALL_AGAIN, InputError, OmniCalcError, WeightsError
from omnicalc.weights_home import weights_home

if TYPE_CHECKING:
    import torch

    from omnicalc.potential import Potential

COPY_AGAIN = "copy the weights folder again from where it came"
BUNDLED = Path(__file__).parent / "weights"
_KNOWN = Path(__file__).parent / "registry.toml"
_DEVICES = ("cpu", "cuda")
_NAME = re.compile(r"(?P<name>[^:@]+)(:(?P<tag>[^:@]+))?(@(?P<version>[^:@]+))?")


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models."""

    name: str
    tag: str
    version: str  # empty for published weights that are not on this machine
    family: str
    summary: str
    status: str  # "bundled", "installed" or "not fetched"
    default: bool  # whether ``name`` alone means this one
    heads: dict[str, tuple[str, ...]]  # name -> symbols of the elements it knows, in order of preference
    periodic: frozenset[str] = frozenset()  # names of heads that were trained on periodic structures
    energies: bool = True  # whether it is a potential
    conservative: bool = True  # whether forces are the gradient of the energy

    @property
    def full_name(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.version}" if self.version else "")

    @property
    def here(self) -> bool:
        """Whether the weights are on this machine."""
        return self.status != "not fetched"

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols that any head knows, by atomic number."""
        from ase.data import chemical_symbols

        return tuple(chemical_symbols[z] for z in sorted(self.numbers))

    @property
    def numbers(self) -> frozenset[int]:
        """Atomic numbers that any head knows."""
        return frozenset().union(*(self.numbers_of(head) for head in self.heads))

    def numbers_of(self, head: str) -> frozenset[int]:
        """Atomic numbers that one head knows."""
        from ase.data import atomic_numbers

        return frozenset(atomic_numbers[s] for s in self.heads[head])

    def head_for(self, numbers: set[int]) -> str | None:
        """The first head that knows all these atomic numbers, if there is one."""
        return next((name for name in self.heads if numbers <= self.numbers_of(name)), None)


@dataclass(frozen=True)
class Published:
    """Weights on a public hub, under a name of ours; empty texts are not known."""

    name: str
    tag: str
    family: str
    summary: str
    repository: str = ""  # owner/name on the Hugging Face hub
    file: str = ""
    config: str = "config.yaml"  # empty: the file holds its settings
    revision: str = ""  # commit of the repository
    sha256: str = ""  # of the file
    config_sha256: str = ""
    gated: bool = False  # the hub asks for an account that has accepted a licence
    licence: str = "unknown; see the publisher"
    citation: tuple[str, ...] = ("unknown; see the publisher",)


def list_models() -> list[ModelEntry]:
    """Bundled and installed weights, newest version first within a tag, then published ones that are not here."""
    known, present = _known(), _present()
    newest = {(card.name, card.tag): card for _, card, _ in reversed(present)}
    entries = [
        ModelEntry(
            name=card.name,
            tag=card.tag,
            version=card.version,
            family=card.family,
            summary=card.summary,
            status=status,
            default=_is_default(card, known) and newest[card.name, card.tag] is card,
            heads={head.name: tuple(head.elements) for head in card.heads},
            periodic=frozenset(head.name for head in card.heads if head.periodic == "trained"),
            energies=card.no_potential is None,
            conservative=card.conservative,
        )
        for _, card, status in present
    ]
    away = [
        ModelEntry(p.name, p.tag, "", p.family, p.summary, status="not fetched", default=False, heads={})
        for p in published()
        if (p.name, p.tag) not in newest
    ]
    return entries + away


def potentials_for(numbers: set[int]) -> list[str]:
    """Full names of the potentials on this machine with a head for all these atomic numbers, newest versions only.

    Those of conservative forces come first, among them those that know most elements: weights of four molecules know
    little of a fifth one.
    """
    able = [m for m in _newest() if m.energies and m.head_for(numbers) is not None]
    able.sort(key=lambda m: (not m.conservative, -len(m.numbers_of(m.head_for(numbers)))))
    return [m.full_name for m in able]


def _newest() -> list[ModelEntry]:
    """The newest version on this machine of each name and tag."""
    newest: dict[tuple[str, str], ModelEntry] = {}
    for entry in list_models():
        if entry.here:
            newest.setdefault((entry.name, entry.tag), entry)
    return list(newest.values())


def published() -> list[Published]:
    """Weights that can be fetched, by ``registry.toml``."""
    entries = _known()["published"]
    return [Published(**{k: tuple(v) if isinstance(v, list) else v for k, v in e.items()}) for e in entries]


def resolve(name: str | Path) -> tuple[Path, Card]:
    """Folder and card that a name or path stands for. Raises :class:`WeightsError` saying what there is."""
    if is_path(name):
        folder = Path(name).expanduser()
        return folder, _folder_card(folder)
    wanted, tag, version = split_name(str(name))
    tag = tag or _known()["default_tag"].get(wanted)
    present = _present(f"{wanted}-{tag}-")  # no others: reading the cards of all takes longer than loading weights
    same_tag = [found for found in present if (found[1].name, found[1].tag) == (wanted, tag)]
    found = [(folder, card, status) for folder, card, status in same_tag if version in (None, card.version)]
    if not found:
        raise WeightsError(_not_here(str(name), wanted, tag, version) + _unreadable())
    if len(found) > 1 and found[0][2] == "installed":
        names = " or ".join(card.full_name for _, card, _ in found)
        raise WeightsError(f"'{name}' could mean more than one model on this machine; type {names}")
    return found[0][:2]


def split_name(name: str) -> tuple[str, str | None, str | None]:
    """Name, tag and version, as far as given. Raises :class:`WeightsError` for what is no model name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise WeightsError(f"'{name}' is no model name; {_FORMS}. {_here()}")
    return match["name"], match["tag"], match["version"]


def folder_name(card: Card) -> str:
    """Name of the folder that the weights lie in, bundled or installed."""
    return f"{card.name}-{card.tag}-{card.version}"


def load_potential(
    name: str | Path = "ubio-s3",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    kernel: str = "auto",
) -> Potential:
    """The potential of a name or weights folder, ready to predict: in evaluation mode, its parameters fixed.

    ``device`` "auto" is a CUDA device if there is one, else the CPU; ``dtype`` is "float32" or "float64", or the
    torch dtype; ``kernel`` "auto" is the native kernel where it can run, on a CPU or a CUDA device, else plain
    torch; "native", "torch", and on a CUDA device "native-fp16" and "native-bf16" insist. The result carries
    ``name_resolved`` (name, tag and version, or the folder, that load these very weights again), ``sha256`` and
    ``card``.

    Raises:
        WeightsError: unknown name, weights that are not here, a damaged file, tensors that do not fit.
        InputError: a device, dtype or kernel that there is not.
    """
    import torch

    from omnicalc.kernel_choice import KernelChoice

    device, dtype, kernel = choose_device(device), choose_dtype(dtype), KernelChoice(kernel)
    folder, card = resolve(name)
    with torch.inference_mode(False):  # weights made in it could never take part in a gradient
        potential = _build(card, verified_bytes(folder, card), folder).to(device=device, dtype=dtype)
    potential.name_resolved = str(folder.resolve()) if is_path(name) else card.full_name
    potential.sha256 = card.sha256
    potential.card, potential.folder = card, folder.resolve()
    potential.kernel = kernel
    return potential.eval().requires_grad_(False)


def verified_bytes(folder: Path, card: Card) -> bytes:
    """The bytes of ``model.safetensors``. Raises :class:`WeightsError` unless their sha256 is the card's."""
    return bytes_of_sha256(folder / WEIGHTS, card.sha256, CARD, _repair(folder))


def bytes_of_sha256(path: Path, sha256: str, card: str, repair: str) -> bytes:
    """The bytes of a file that the file ``card`` gives the hash of. Raises :class:`WeightsError` for others, with what
    to do about it, ``repair``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); {repair}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise WeightsError(
            f"{path} is damaged or was changed: its sha256 is {digest}, but {card} says {sha256}; {repair}"
        )
    return content


def choose_device(device: str | torch.device) -> torch.device:
    """The torch device meant by "auto", a name, or a device. Raises :class:`InputError` if there is none."""
    import torch

    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        kind = chosen.type
    except (RuntimeError, TypeError):
        kind = None
    if kind == "mps":
        raise InputError(f"device '{device}' given; Apple's GPUs have no float64, which is needed: use auto or cpu")
    if kind not in _DEVICES:  # the others lack float64 or cannot hold numbers at all
        raise InputError(f"unknown device '{device}'; use auto, cpu, cuda, or cuda:1 for the second GPU")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device '{device}' cannot be used ({reason}); use auto or cpu") from None
    return chosen


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype meant by "float32" or "float64". Raises :class:`InputError` for anything else."""
    import torch

    known = {"float32": torch.float32, "float64": torch.float64}
    chosen = known.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if chosen not in known.values():
        raise InputError(f"dtype '{dtype}' given; float32 or float64 is needed")
    return chosen


def _build(card: Card, content: bytes, folder: Path) -> Potential:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from omnicalc.models.torch_defaults import own_defaults
    from omnicalc.potential import Potential

    try:
        with own_defaults(), torch.random.fork_rng(devices=[]):  # a new model draws its weights before it gets these
            potential = Potential.from_card(card, load(content))
    except OmniCalcError:
        raise
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        what = f"{folder / WEIGHTS} does not fit its {CARD}: {error}"
        raise WeightsError(f"{' '.join(what.split())}; {_repair(folder)}") from None
    for key in ("cutoff", "conservative"):
        if getattr(potential, key) != getattr(card, key):
            raise WeightsError(
                f"{folder / CARD}: {key} is {getattr(card, key)}, but its [config] makes a model with "
                f"{getattr(potential, key)}; {_repair(folder)}"
            )
    return potential


def _repair(folder: Path) -> str:
    if folder.parent == BUNDLED:
        return INSTALL_AGAIN
    if folder.parent == weights_home():
        return f"remove that folder (rm -r '{folder}') and import or fetch it again (omnicalc models --help)"
    return COPY_AGAIN


def is_path(name: str | Path) -> bool:
    """Whether a path was meant: a Path, or a text that has a separator or starts with '.' or '~'."""
    if isinstance(name, os.PathLike):
        return True
    if not isinstance(name, str):
        raise WeightsError(f"{name!r} is no model name; {_FORMS}. {_here()}")
    return "/" in name or os.sep in name or name.startswith((".", "~"))


def _folder_card(folder: Path) -> Card:
    if not folder.exists():
        raise WeightsError(f"{folder}: no such folder; {_FORMS}. {_here()}")
    if (folder / DECODER_CARD).is_file():
        raise WeightsError(f"{folder} holds a decoder, which has no energies; use it with omnicalc decode")
    lacking = [file for file in (CARD, WEIGHTS) if not (folder / file).is_file()]
    if lacking:
        raise WeightsError(f"{folder} is no weights folder: it has no {' and no '.join(lacking)}")
    return read_card(folder / CARD)


def _present(prefix: str = "") -> list[tuple[Path, Card, str]]:
    """Folder, card and status of all on this machine, or of those whose folders' names (:func:`folder_name`) begin with
    ``prefix``: by name, default tag first, newest version first.

    A bundled card that cannot be read is an error; an installed one is passed over here, and named by
    :func:`unreadable`, so that it keeps nobody from using the others.
    """
    found = [(folder, _own_card(folder), "bundled") for folder in _folders(BUNDLED, prefix)]
    found += [(folder, card, "installed") for folder, card in _installed(prefix) if isinstance(card, Card)]
    known = _known()
    found.sort(key=lambda item: version_key(item[1].version), reverse=True)
    found.sort(key=lambda item: (item[1].name, not _is_default(item[1], known), item[1].tag, item[2]))
    return found


def unreadable() -> list[str]:
    """What is wrong with installed weights whose card cannot be read, a message each."""
    return [str(problem) for _, problem in _installed() if not isinstance(problem, Card)]


def _installed(prefix: str = "") -> list[tuple[Path, Card | WeightsError]]:
    found = []
    for folder in _folders(weights_home(), prefix):
        try:
            found.append((folder, _own_card(folder)))
        except WeightsError as problem:
            found.append((folder, problem))
    return found


def _folders(home: Path, prefix: str) -> list[Path]:
    """Those in ``home`` whose names begin with ``prefix``; those with a leading dot are still being written."""
    try:
        found = sorted(card.parent for card in home.glob(f"*/{CARD}"))
        return [folder for folder in found if folder.name.startswith(prefix) and not folder.name.startswith(".")]
    except OSError:  # a home that may not be read
        return []


def _own_card(folder: Path) -> Card:
    card = read_card(folder / CARD)
    if folder.name != folder_name(card):
        what = f"{folder / CARD} is the card of {card.full_name}, not of this folder"
        raise WeightsError(f"{what}; {_repair(folder)}")
    return card


def _known() -> dict:
    with _KNOWN.open("rb") as file:
        return tomllib.load(file)


def _is_default(card: Card, known: dict) -> bool:
    return known["default_tag"].get(card.name) == card.tag


def version_key(version: str) -> list[int]:
    """Orders versions by their numbers: 0.9 < 0.10 < 1.0."""
    return [int(number) for number in re.findall(r"\d+", version)]


_FORMS = "a name as in ubio-s3, ubio-s3:small or ubio-s3:small@0.1, or a path as in ./folder, is needed"


def _here() -> str:
    names = ", ".join(entry.full_name for entry in _newest())
    return f"On this machine: {names or 'none'} (omnicalc models lists them, older versions too)"


def _guess(given: str) -> str:
    entries = list_models()
    words = {word for e in entries for word in (e.name, f"{e.name}:{e.tag}", e.full_name)} - {given}
    close = difflib.get_close_matches(given.lower(), sorted(words), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "."


def _get(name: str, tag: str) -> str:
    """What to type to get published weights."""
    known = next(p for p in published() if (p.name, p.tag) == (name, tag))
    if not known.repository:
        return f"this version of OmniCalc does not know where they are published. {_here()}"
    return f"type: omnicalc models fetch {name}:{tag}. {_here()}"


def _unreadable() -> str:
    return "".join(f"\n{problem}" for problem in unreadable())


def _not_here(given: str, name: str, tag: str | None, version: str | None) -> str:
    """Why nothing was found: no such version, not fetched, no such tag, or no such name."""
    same_name = [entry for entry in list_models() if entry.name == name]
    same_tag = [entry for entry in same_name if entry.tag == tag]
    if same_tag and not same_tag[0].here:
        return f"{given} is known ({same_tag[0].summary}), but its weights are not on this machine; {_get(name, tag)}"
    if same_tag:
        versions = ", ".join(entry.full_name for entry in same_tag)
        return f"there is no version {version} of {name}:{tag} on this machine; there is {versions}"
    if same_name:
        tags = ", ".join(entry.full_name for entry in same_name)
        what = f"'{given}' is not on this machine{_guess(given)}"
        return f"{what} Known of {name}: {tags} (omnicalc models lists them)"
    if any(any(home.glob(f"{name}-*/{DECODER_CARD}")) for home in (BUNDLED, weights_home())):
        return f"{name} is a decoder, which has no energies and no forces; use it with omnicalc decode"
    folder = f"; for the folder of that name type ./{given}." if Path(given).is_dir() else _guess(given)
    return f"unknown model '{given}'{folder} {_here()}"
