"""``omnicalc models`` as it is typed."""

import subprocess
import sys
from dataclasses import replace

import pytest

from omnicalc import model_text, registry
from omnicalc.card import DECODER_CARD, WEIGHTS
from omnicalc.decoding.card import write_decoder_card
from omnicalc.errors import WeightsError
from omnicalc.registry import resolve
from tests.command import omnicalc
from tests.tiny_decoder import write_decoder
from tests.tiny_weights import write_weights


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    for tag in ("a", "b"):
        write_weights(tmp_path / f"tiny-{tag}-1.0", tag=tag)
    (tmp_path / "registry.toml").write_text(
        '[default_tag]\ntiny = "a"\n[[published]]\nname = "big"\ntag = "24m"\nfamily = "e2former"\n'
        'summary = "published elsewhere"\n'
    )
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    monkeypatch.setattr(registry, "_KNOWN", tmp_path / "registry.toml")
    return tmp_path


def test_list(bundled):
    said = omnicalc("models")
    assert "tiny:a@1.0  (bundled, the default for 'tiny')" in said and "tiny:b@1.0  (bundled)" in said
    assert "big:24m  (not fetched)" in said and "head salt-theory: H O Na Cl" in said


def test_card(bundled):
    said = omnicalc("models", "tiny")
    assert said.startswith("tiny:a@1.0\nuntrained, for tests\n")
    for text in ("head water-theory (preferred)", "H -10.1000", "licence   MIT", "gradient of the energy"):
        assert text in said
    assert omnicalc("models", bundled / "tiny-b-1.0").startswith("tiny:b@1.0")
    with pytest.raises(WeightsError, match="not on this machine"):
        omnicalc("models", "big:24m")


@pytest.mark.parametrize(
    "family, config, said",
    [
        ("e2former", {}, "gradient of the energy"),
        ("scd", {"gives": "embeddings"}, "none, and no energies: pretrained only"),
        ("scd", {"gives": "properties"}, "none, and no energies: properties"),
        ("scd", {"backbone": "cgt"}, "none, and no energies"),
        ("denoiser", {"backbone": "e2former"}, "none, and no energies: pretrained only"),
    ],
)
def test_what_forces_are(bundled, family, config, said):
    card = replace(resolve("tiny")[1], family=family, config=config)
    assert model_text._forces(card).startswith(said)


def test_verify(bundled):
    said = omnicalc("models", "--verify")
    assert "tiny:a@1.0: ok" in said and "tiny:b@1.0: ok" in said
    path = bundled / "tiny-b-1.0" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        omnicalc("models", "--verify")
    assert "tiny (tiny:a@1.0): ok" in omnicalc("models", "--verify", "tiny")


def test_decoders(bundled):
    """Shown and checked like the rest, by name and by folder."""
    card = replace(write_decoder(bundled / "still-one-1.0"), name="still", tag="one")
    write_decoder_card(bundled / "still-one-1.0" / DECODER_CARD, card)
    said = omnicalc("models", "still")
    assert said.startswith("still:one@1.0\n") and "a decoder of later frames: no energies" in said
    assert omnicalc("models", bundled / "still-one-1.0") == said
    assert "still:one@1.0: ok" in omnicalc("models", "--verify")
    assert "still (still:one@1.0): ok" in omnicalc("models", "--verify", "still")
    path = bundled / "still-one-1.0" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        omnicalc("models", "--verify")


@pytest.mark.parametrize("words", [["models"], ["models", "--verify"], ["models", "--help"]])
def test_without_torch(words):
    """On the weights that are really bundled."""
    code = "import sys; from omnicalc.cli import group\ntry: group(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'MDAnalysis', 'matplotlib'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert process.stdout.splitlines()[-1] == "set()", process.stderr
