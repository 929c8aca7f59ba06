"""Fetching: with a hub that the test makes up, with the real library offline, and without the library."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from omnicalc import registry
from omnicalc.errors import WeightsError
from omnicalc.registry import load_potential, published, resolve
from tests.command import omnicalc
from tests.published.files import CASES, write_published
from tests.published.test_allscaip import CONSERVATIVE, parts
from tests.published.test_scd import checkpoint

pytest.importorskip("yaml", reason="published configs are YAML; pip install pyyaml")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CASE = CASES / "water_qk_l2"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> list[tuple]:
    """A hub with the files of V1.5 in its cache; the calls that it got."""
    folder = tmp_path / "hub" / "models--IQuestLab--IQuest-UBio-MolFM-V1.5" / "snapshots" / COMMIT
    write_published(folder, CASE).rename(folder / "molfm-v1p5-stage-3.pt")
    return made_up(folder, monkeypatch)


def made_up(folder: Path, monkeypatch) -> list[tuple]:
    """A library of the hub that finds all files in ``folder``; the calls that it will get."""
    calls = []

    def hf_hub_download(repo_id, filename, *, revision=None):
        calls.append((repo_id, filename, revision))
        return str(folder / filename)

    library = ModuleType("huggingface_hub")
    library.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return calls


def pin(monkeypatch, tmp_path, **facts: str) -> None:
    """A registry that knows these facts of ubio-s3:24m."""
    text = registry._KNOWN.read_text()
    lines = "\n".join(f'{key} = "{value}"' for key, value in facts.items())
    (tmp_path / "registry.toml").write_text(text.replace('tag = "24m"\n', f'tag = "24m"\n{lines}\n', 1))
    monkeypatch.setattr(registry, "_KNOWN", tmp_path / "registry.toml")


def test_fetch(hub, tmp_path):
    said = omnicalc("models", "fetch", "ubio-s3:24m")
    repository = "IQuestLab/IQuest-UBio-MolFM-V1.5"
    assert hub == [(repository, "molfm-v1p5-stage-3.pt", None), (repository, "config.yaml", COMMIT)]
    card = resolve("ubio-s3:24m")[1]
    (file,) = tmp_path.rglob("molfm-v1p5-stage-3.pt")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert card.training["revision"] == COMMIT and card.training["repository"] == repository
    assert card.training["file_sha256"] == digest and f"sha256 {digest}, not pinned" in said and COMMIT in said
    assert card.licence.startswith("MIT") and "2602.17709" in " ".join(card.citation)
    assert load_potential("ubio-s3:24m").sha256 == card.sha256
    with pytest.raises(WeightsError, match="already on this machine"):
        omnicalc("models", "fetch", "ubio-s3:24m")
    assert len(hub) == 2  # refused before anything was asked for
    assert "ubio-s3:24m-smooth@" in omnicalc("models", "fetch", "ubio-s3:24m", "--smooth")


def test_pinned(hub, tmp_path, home, monkeypatch):
    (file,) = tmp_path.rglob("molfm-v1p5-stage-3.pt")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    pin(monkeypatch, tmp_path, revision=COMMIT, sha256=digest)
    assert f"sha256 {digest}, as pinned" in omnicalc("models", "fetch", "ubio-s3:24m")
    assert [revision for *_, revision in hub] == [COMMIT, COMMIT]


def test_not_what_is_pinned(hub, tmp_path, home, monkeypatch):
    pin(monkeypatch, tmp_path, sha256="0" * 64)
    with pytest.raises(WeightsError, match="is not the file that OmniCalc knows: its sha256 is .*models import"):
        omnicalc("models", "fetch", "ubio-s3:24m")
    assert not home.exists()
    assert "ubio-s3:24m@" in omnicalc("models", "fetch", "ubio-s3:24m", "--revision", "v2")  # asked for by the user
    assert hub[-2][2] == "v2"


def test_other_places(hub):
    with pytest.raises(WeightsError, match="nothing is known to be published as 'my:own'; to be fetched by name: ubio"):
        omnicalc("models", "fetch", "my:own")
    words = ["--repository", "me/mine", "--file", "molfm-v1p5-stage-3.pt"]
    omnicalc("models", "fetch", "my:own", *words)
    assert hub[0][0] == "me/mine" and resolve("my:own")[1].licence == "unknown; see the publisher"


@pytest.mark.parametrize("name", ["allscaip:md-cons", "scd:pcq"])
def test_checkpoints_that_hold_their_settings(tmp_path, monkeypatch, name):
    """No config is asked for; which family it is, the file says; licence and citation are the registry's."""
    known = next(p for p in published() if f"{p.name}:{p.tag}" == name)
    folder = tmp_path / "hub" / "models--x--y" / "snapshots" / COMMIT
    file = folder / known.file
    file.parent.mkdir(parents=True)
    if known.family == "scd":
        checkpoint(file)
    else:
        torch.save(parts(CONSERVATIVE), file)
    calls = made_up(folder, monkeypatch)
    said = omnicalc("models", "fetch", name)
    assert calls == [(known.repository, known.file, None)]
    card = resolve(name)[1]
    assert (card.family, card.licence, tuple(card.citation)) == (known.family, known.licence, known.citation)
    assert card.training["revision"] == COMMIT and card.training["repository"] == known.repository
    energies = "no energies" not in omnicalc("models", name)
    assert energies == (known.family == "allscaip")
    assert ("omnicalc md STRUCTURE" in said) == energies and ("omnicalc embed" in said) != energies
    other = f"{known.name}:other"
    omnicalc("models", "fetch", other, "--repository", "me/mine", "--file", known.file)
    assert calls[1:] == [("me/mine", known.file, None)] and resolve(other)[1].licence.startswith("unknown")


def test_gated(monkeypatch, home):
    """What to do where the hub asks for an account, in one message."""
    library = ModuleType("huggingface_hub")

    def hf_hub_download(*args, **kwargs):
        raise OSError("403 Client Error. Cannot access gated repo")

    library.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    with pytest.raises(WeightsError, match="accept its licence at https://huggingface.co/facebook/OMol25") as caught:
        omnicalc("models", "fetch", "allscaip:md-cons")
    assert "hf auth login" in str(caught.value) and "gated repo" in str(caught.value)
    assert str(caught.value).endswith("omnicalc models import AllScAIP-OMol102M-md-cons.pt --as allscaip:md-cons")
    with pytest.raises(WeightsError) as caught:
        omnicalc("models", "fetch", "scd:pcq")
    assert "gated: accept" not in str(caught.value)
    assert not home.exists()


def test_without_the_library(monkeypatch, home):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub") as caught:
        omnicalc("models", "fetch", "ubio-s3:24m")
    assert str(caught.value).endswith(
        "download molfm-v1p5-stage-3.pt and config.yaml from https://huggingface.co/IQuestLab/IQuest-UBio-MolFM-V1.5 "
        "and type: omnicalc models import molfm-v1p5-stage-3.pt --config config.yaml --as ubio-s3:24m"
    )
    assert not home.exists()


def test_the_real_library_offline(monkeypatch, tmp_path, home):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="could not be fetched .*By hand: download .*omnicalc models import"):
        omnicalc("models", "fetch", "ubio-s3:24m")
    assert not home.exists()


def test_the_known_ones():
    """What the registry says can be fetched, and that a name that is not here says how to get it."""
    places = {f"{p.name}:{p.tag}": (p.repository, p.file) for p in published()}
    assert places == {
        "ubio-s3:24m": ("IQuestLab/IQuest-UBio-MolFM-V1.5", "molfm-v1p5-stage-3.pt"),
        "ubio-s3:24m-v1": ("IQuestLab/IQuest-UBio-MolFM-V1", "molfm-v1-stage-3.pt"),
        "allscaip:md-cons": ("facebook/OMol25", "checkpoints/AllScAIP/AllScAIP-OMol102M-md-cons.pt"),
        "allscaip:md-direct": ("facebook/OMol25", "checkpoints/AllScAIP/AllScAIP-OMol102M-md-d.pt"),
        "scd:pcq": ("Ty-Perez/ct-scd-pcq", "last.ckpt"),
        "scd:amp": ("Ty-Perez/ct-scd-amp", "last.ckpt"),
    }
    with pytest.raises(WeightsError, match="not on this machine; type: omnicalc models fetch ubio-s3:24m"):
        load_potential("ubio-s3:24m")
