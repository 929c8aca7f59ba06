"""Names, versions, hashes: what is loaded is exactly what was named, or nothing is."""

import subprocess
import sys

import pytest
import torch
from ase.build import molecule
from safetensors.torch import load_file, save_file

import omnicalc
from omnicalc import registry
from omnicalc.card import CARD, WEIGHTS, read_card, write_card
from omnicalc.errors import InputError, WeightsError
from omnicalc.neighbors import neighbors
from omnicalc.registry import list_models, load_potential, resolve
from omnicalc.systems import Systems
from omnicalc.weights_home import weights_home
from tests.tiny_weights import write_weights

KNOWN = """
[default_tag]
tiny = "a"

[[published]]
name = "tiny"
tag = "huge"
family = "e2former"
summary = "published elsewhere"
"""


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A package with tiny:a in three versions and tiny:b in one."""
    folder = tmp_path / "weights"
    for k, (tag, version) in enumerate([("a", "0.9"), ("a", "0.10"), ("a", "0.2"), ("b", "0.11")]):
        write_weights(folder / f"tiny-{tag}-{version}", tag=tag, version=version, seed=k)
    known = tmp_path / "registry.toml"
    known.write_text(KNOWN)
    monkeypatch.setattr(registry, "BUNDLED", folder)
    monkeypatch.setattr(registry, "_KNOWN", known)
    return folder


def energy(potential) -> float:
    systems = Systems.from_atoms(molecule("H2O"))
    return float(potential(systems, neighbors(systems, potential.cutoff), head="water-theory").energy)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("tiny", "tiny-a-0.10"),
            ("tiny:a", "tiny-a-0.10"),
            ("tiny@0.9", "tiny-a-0.9"),
            ("tiny:a@0.2", "tiny-a-0.2"),
            ("tiny:b", "tiny-b-0.11"),
        ],
    )
    def test_names(self, bundled, name, folder):
        path, card = resolve(name)
        assert path == bundled / folder and f"{card.name}-{card.tag}-{card.version}" == folder
        assert load_potential(name).name_resolved == card.full_name

    def test_list(self, bundled):
        entries = list_models()
        names = ["tiny:a@0.10", "tiny:a@0.9", "tiny:a@0.2", "tiny:b@0.11", "tiny:huge"]
        assert [entry.full_name for entry in entries] == names
        assert [entry.default for entry in entries] == [True, False, False, False, False]
        assert [entry.status for entry in entries] == ["bundled"] * 4 + ["not fetched"]
        assert entries[0].elements == ("H", "O", "Na", "Cl") and entries[0].numbers == {1, 8, 11, 17}
        assert entries[0].head_for({1, 8}) == "water-theory" and entries[0].head_for({11}) == "salt-theory"
        assert entries[0].head_for({6}) is None and entries[-1].heads == {}

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("tinny", "unknown model 'tinny'; did you mean tiny"),
            ("tiny:a@0.3", "no version 0.3 of tiny:a on this machine; there is tiny:a@0.10, tiny:a@0.9"),
            ("tiny:c", "Known of tiny: tiny:a@0.10"),
            ("tiny:huge", "tiny:huge is known .published elsewhere., but its weights are not on this"),
            ("tiny:huge@1", "its weights are not on this machine"),
            ("xyzzy", "unknown model 'xyzzy'. On this machine: tiny:a@0.10"),
            ("a:b:c", "no model name"),
            ("", "no model name"),
            ("./nowhere", "no such folder"),
        ],
    )
    def test_what_is_not_there(self, bundled, name, message):
        with pytest.raises(WeightsError, match=message):
            load_potential(name)

    def test_a_folder_in_the_way_is_not_taken_for_a_name(self, bundled, tmp_path, monkeypatch):
        write_weights(tmp_path / "tiny", seed=7)
        write_weights(tmp_path / "other", seed=7)
        monkeypatch.chdir(tmp_path)
        assert load_potential("tiny").name_resolved == "tiny:a@0.10"
        with pytest.raises(WeightsError, match="unknown model 'other'"):
            load_potential("other")
        assert load_potential("./other").name_resolved == str(tmp_path / "other")

    def test_a_bundled_card_in_the_wrong_folder(self, bundled):
        (bundled / "tiny-b-0.11").rename(bundled / "tiny-b-0.12")
        for look in (lambda: resolve("tiny:b"), list_models):
            with pytest.raises(WeightsError, match="card of tiny:b@0.11, not of this folder"):
                look()

    def test_a_name_reads_no_other_cards(self, bundled, monkeypatch):
        read = []
        monkeypatch.setattr(registry, "read_card", lambda path: read.append(path.parent.name) or read_card(path))
        resolve("tiny")
        assert sorted(read) == ["tiny-a-0.10", "tiny-a-0.2", "tiny-a-0.9"]


class TestLoading:
    def test_a_path(self, tmp_path):
        card = write_weights(tmp_path)
        potential = load_potential(tmp_path)
        assert potential.sha256 == card.sha256 and potential.card == read_card(tmp_path / CARD)
        assert potential.name_resolved == str(tmp_path) == load_potential(f"{tmp_path}/").name_resolved
        assert not potential.training and not any(p.requires_grad for p in potential.parameters())
        assert energy(load_potential(potential.name_resolved)) == energy(potential)

    def test_versions_hold_different_weights(self, bundled):
        assert energy(load_potential("tiny@0.9")) != energy(load_potential("tiny@0.10"))

    def test_dtype(self, tmp_path):
        write_weights(tmp_path)
        assert load_potential(tmp_path, dtype="float64").dtype == torch.float64
        assert load_potential(tmp_path, dtype=torch.float64).dtype == torch.float64
        assert load_potential(tmp_path).dtype == torch.float32

    def test_dtypes_and_devices_that_are_not(self, tmp_path):
        write_weights(tmp_path)
        for dtype in ("float16", torch.bfloat16, "double", 64):
            with pytest.raises(InputError, match="float32 or float64 is needed"):
                load_potential(tmp_path, dtype=dtype)
        for device in ("gpu", "cuda:99", 3.5):
            with pytest.raises(InputError, match=f"device '{device}'.*use auto"):
                load_potential(tmp_path, device=device)

    def test_global_state_is_left_alone(self, tmp_path):
        write_weights(tmp_path)
        before = torch.get_default_dtype(), torch.get_num_threads(), torch.random.get_rng_state()
        load_potential(tmp_path, dtype="float64")
        assert (torch.get_default_dtype(), torch.get_num_threads()) == before[:2]
        assert torch.equal(torch.random.get_rng_state(), before[2])


class TestDamage:
    def test_one_bit(self, tmp_path):
        card = write_weights(tmp_path)
        content = bytearray((tmp_path / WEIGHTS).read_bytes())
        content[-3] ^= 1
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(WeightsError, match="damaged") as caught:
            load_potential(tmp_path)
        assert card.sha256 in str(caught.value) and str(tmp_path / WEIGHTS) in str(caught.value)

    def test_truncated(self, bundled):
        path = bundled / "tiny-a-0.10" / WEIGHTS
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(WeightsError, match=r"damaged .* install OmniCalc again: in a clone .* --no-deps \.$"):
            load_potential("tiny")

    def test_missing_files(self, tmp_path):
        write_weights(tmp_path)
        (tmp_path / WEIGHTS).unlink()
        with pytest.raises(WeightsError, match="has no model.safetensors"):
            load_potential(tmp_path)
        (tmp_path / CARD).unlink()
        with pytest.raises(WeightsError, match="has no card.toml and no model.safetensors"):
            load_potential(tmp_path)

    def test_missing_key_on_the_card(self, tmp_path):
        write_weights(tmp_path)
        text = (tmp_path / CARD).read_text()
        (tmp_path / CARD).write_text(text.replace('family = "e2former"\n', ""))
        with pytest.raises(WeightsError, match="missing: family"):
            load_potential(tmp_path)

    @pytest.mark.parametrize("slip", ["missing", "unexpected", "shape", "not safetensors"])
    def test_tensors_that_do_not_fit_although_the_hash_does(self, tmp_path, slip):
        write_weights(tmp_path)
        path = tmp_path / WEIGHTS
        tensors = load_file(path)
        last = sorted(tensors)[-1]
        if slip == "missing":
            del tensors[last]
        elif slip == "unexpected":
            tensors["stray"] = torch.zeros(1)
        elif slip == "shape":
            tensors[last] = torch.zeros(1, 2, 3, 4)
        if slip == "not safetensors":
            path.write_bytes(b"not tensors at all")
        else:
            save_file(tensors, path)
        self.accept(tmp_path)
        with pytest.raises(WeightsError, match="does not fit|missing|unexpected"):
            load_potential(tmp_path)

    def test_a_card_that_contradicts_its_config(self, tmp_path):
        write_weights(tmp_path)
        text = (tmp_path / CARD).read_text()
        (tmp_path / CARD).write_text(text.replace("cutoff = 3.0", "cutoff = 4.0", 1))
        with pytest.raises(WeightsError, match="cutoff is 4.0, but"):
            load_potential(tmp_path)

    def accept(self, folder):
        """Write the file's own hash on the card."""
        import hashlib
        from dataclasses import replace

        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        write_card(folder / CARD, replace(read_card(folder / CARD), sha256=digest))


class TestInstalled:
    """Weights in the user's folder, beside the bundled ones."""

    @pytest.fixture
    def home(self, bundled, tmp_path, monkeypatch):
        monkeypatch.setenv("OMNICALC_HOME", str(tmp_path / "home"))
        return tmp_path / "home" / "weights"

    def test_found_by_name_and_listed(self, home):
        assert [entry.tag for entry in list_models()][-1] == "huge"  # and no folder is made by looking
        assert not home.exists()
        write_weights(home / "tiny-huge-1", tag="huge", version="1", seed=5)
        entry = list_models()[-1]
        assert (entry.full_name, entry.status, entry.default, entry.here) == ("tiny:huge@1", "installed", False, True)
        assert [e.status for e in list_models()].count("not fetched") == 0
        assert resolve("tiny:huge")[0] == home / "tiny-huge-1" and resolve("tiny")[0].name == "tiny-a-0.10"
        assert energy(load_potential("tiny:huge@1")) != energy(load_potential("tiny"))

    def test_never_takes_the_place_of_a_bundled_one(self, home):
        write_weights(home / "tiny-a-9.0", tag="a", version="9.0", seed=5)
        assert resolve("tiny")[1].version == resolve("tiny:a")[1].version == "0.10"
        assert resolve("tiny:a@9.0")[0] == home / "tiny-a-9.0"

    def test_two_versions_are_told_apart_or_refused(self, home):
        for k, version in enumerate(("1a", "2b")):
            write_weights(home / f"tiny-huge-{version}", tag="huge", version=version, seed=k)
        with pytest.raises(WeightsError, match="more than one model.*type tiny:huge@2b or tiny:huge@1a"):
            resolve("tiny:huge")
        assert resolve("tiny:huge@1a")[1].version == "1a"

    def test_a_broken_one_keeps_nobody_from_the_others(self, home):
        write_weights(home / "tiny-huge-1", tag="huge", version="1")
        (home / "tiny-huge-1" / CARD).write_text("name = 3")
        write_weights(home / "tiny-new-1", tag="other", version="1")
        assert energy(load_potential("tiny")) and len(registry.unreadable()) == 2
        with pytest.raises(WeightsError, match="not on this machine") as caught:
            resolve("tiny:huge")
        assert f"{home / 'tiny-huge-1' / CARD}: keys missing" in str(caught.value)
        assert "card of tiny:other@1, not of this folder; remove that folder" in str(caught.value)

    def test_damage(self, home):
        write_weights(home / "tiny-huge-1", tag="huge", version="1")
        path = home / "tiny-huge-1" / WEIGHTS
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(WeightsError, match="damaged .* remove that folder .* import or fetch it again"):
            load_potential("tiny:huge")

    @pytest.mark.parametrize(
        ("variables", "folder"),
        [
            ({}, "me/.local/share/omnicalc/weights"),
            ({"XDG_DATA_HOME": "{}/data"}, "data/omnicalc/weights"),
            ({"XDG_DATA_HOME": "data"}, "me/.local/share/omnicalc/weights"),
            ({"XDG_DATA_HOME": "", "OMNICALC_HOME": ""}, "me/.local/share/omnicalc/weights"),
            ({"XDG_DATA_HOME": "{}/data", "OMNICALC_HOME": "{}/omni"}, "omni/weights"),
            ({"OMNICALC_HOME": "~/omni"}, "me/omni/weights"),
        ],
    )
    def test_where(self, tmp_path, monkeypatch, variables, folder):
        for name in ("XDG_DATA_HOME", "OMNICALC_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"HOME": "{}/me"} | variables).items():
            monkeypatch.setenv(name, value.format(tmp_path))
        assert weights_home() == tmp_path / folder


class TestShipped:
    """What really lies in the package."""

    def test_listing_never_loads_torch(self):
        code = (
            "import sys, omnicalc; print([m.full_name for m in omnicalc.list_models()]);"
            "sys.exit('torch' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    def test_every_bundled_model_loads_by_its_full_name(self):
        for entry in omnicalc.list_models():
            if entry.status == "bundled":
                potential = omnicalc.load_potential(entry.full_name)
                assert potential.name_resolved == entry.full_name

    def test_the_published_checkpoint_is_known_but_not_here(self):
        with pytest.raises(WeightsError, match="not on this machine"):
            omnicalc.load_potential("ubio-s3:24m")


def test_potentials_that_know_some_elements_are_named_once():
    """What messages offer: the newest version of each tag, and nothing without energies."""
    names = registry.potentials_for({1, 6, 8})
    tags = [name.partition("@")[0] for name in names]
    assert len(set(tags)) == len(tags) and "scd:pretrained" not in tags
    several = {m.full_name for m in list_models() if m.head_for({1, 6, 8})} - set(names)
    assert "ubio-s2:small@0.1" in several and {"ubio-s2:small", "ubio-s3:wide"} <= set(tags)
    assert registry.potentials_for({92}) == []


def test_potentials_that_know_more_come_first():
    """Weights of four molecules, or without conservative forces, are no answer to an unknown molecule."""
    names = [name.partition("@")[0] for name in registry.potentials_for({1, 6, 8})]
    broad = {"ubio-s2:small", "ubio-s2:wide", "ubio-s3:wide"}
    assert set(names[:3]) == broad and names[-1] == "omnimol-direct:organics"


def test_messages_name_the_newest_versions_alone():
    with pytest.raises(WeightsError) as caught:
        load_potential("xyzzy")
    assert "ubio-s3:small@0.3" in str(caught.value) and "ubio-s3:small@0.1" not in str(caught.value)
