"""Import of published weights: what cannot be used is refused, says why, and leaves nothing behind."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase import Atoms

from omnicalc.calculator import OmniCalc
from omnicalc.card import CARD, WEIGHTS, read_card
from omnicalc.errors import InputError, WeightsError
from omnicalc.models.e2former.published_references import reference_table, table_names
from omnicalc.registry import list_models, load_potential, resolve
from omnicalc.weights_home import weights_home
from tests.command import omnicalc
from tests.published.files import CASES, published_config, published_tensors, write_published

pytest.importorskip("yaml", reason="published configs are YAML; pip install pyyaml")

CASE = CASES / "water_qk_l2"  # heads omol25 and svp


def config_with(**changes) -> dict:
    """The case's config; changes of the network's settings, and of the top level where they are known there."""
    config = published_config(CASE)
    for key, value in changes.items():
        top = key in (
            "dataset_name_list",
            "head_cfg_str",
            "loss_unit",
            "with_moe",
            "AutoGradForce",
            "backbone",
            "backbone_config",
        )
        (config if top else config["backbone_config"])[key] = value
    return config


def refused(kind, file, *words, match) -> str:
    """The message of an import that must fail and leave no trace."""
    home = weights_home()
    before = sorted(home.rglob("*")) if home.is_dir() else []
    with pytest.raises(kind, match=match) as caught:
        omnicalc("models", "import", file, "--as", "ubio-s3:24m", *words)
    assert (sorted(home.rglob("*")) if home.is_dir() else []) == before
    return str(caught.value)


class TestImport:
    def test_folder_and_card(self, tmp_path, home):
        file = write_published(tmp_path, CASE)
        said = omnicalc("models", "import", file, "--as", "ubio-s3:24m")
        (folder,) = home.iterdir()
        assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]
        card = read_card(folder / CARD)
        assert folder.name == f"ubio-s3-24m-{card.version}" and said.startswith(f"ubio-s3:24m@{card.version}: {folder}")
        assert [h.name for h in card.heads] == ["omol25", "svp"] and card.dtype == "float32" and card.conservative
        assert card.charges == tuple(range(-10, 11)) and 1 in card.spins and card.cutoff == 4.5
        assert card.licence == "unknown; see the publisher" and card.accuracy == {}
        import hashlib

        assert card.training["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        for name in ("decoder.embedding.weight", "decoder.decoder.edge_deg_embed_dense.sph.W"):
            assert f"    {name}\n" in said and name in card.training["dropped"]
        assert "blocks" not in " ".join(card.training["dropped"])
        assert "the nearest 32" in said and "--smooth would change" in said

    def test_every_tensor_is_accounted_for(self, tmp_path, home):
        tensors = published_tensors(CASE)
        said = omnicalc("models", "import", write_published(tmp_path, CASE), "--as", "ubio-s3:24m")
        kept = len(load_potential("ubio-s3:24m").model.state_dict())
        dropped = len(resolve("ubio-s3:24m")[1].training["dropped"])
        assert f"constant: {len(tensors) - kept - dropped} tensors" in said
        constants = ("idx", "index", "offset", "norm", "degree_weight", "CG_weight", "Jd_list")
        assert len(tensors) - kept - dropped == sum(
            any(part in k for part in constants) and not k.endswith(("affine_weight", "affine_bias")) for k in tensors
        )

    def test_the_same_files_give_the_same_name_and_another_setting_another(self, tmp_path, home):
        versions = []
        for k, cap in enumerate((32, 32, 64)):
            file = write_published(tmp_path / str(k), CASE, config=config_with(max_neighbors=cap))
            omnicalc("models", "import", file, "--as", f"mine:{k}")
            versions.append(resolve(f"mine:{k}")[1].version)
        assert versions[0] == versions[1] != versions[2]

    def test_smooth_has_a_name_of_its_own_and_says_what_it_changes(self, tmp_path):
        file = write_published(tmp_path, CASE)
        omnicalc("models", "import", file, "--as", "ubio-s3:24m")
        said = omnicalc("models", "import", file, "--as", "ubio-s3:24m", "--smooth")
        assert "ubio-s3:24m-smooth@" in said and "changed against the published network" in said
        card = resolve("ubio-s3:24m-smooth")[1]
        assert card.training["smooth"] is True and "max_neighbors" not in card.config
        assert card.config["weights"] == "smooth-softmax" and resolve("ubio-s3:24m")[1].config["weights"] == "softmax"
        assert load_potential("ubio-s3:24m-smooth").model.config.max_neighbors is None
        refused(WeightsError, file, "--as", "ubio-s3:other-smooth", match="without --smooth")

    def test_listed_beside_the_bundled_ones(self, tmp_path):
        assert "ubio-s3:24m  (not fetched)" in omnicalc("models")
        omnicalc("models", "import", write_published(tmp_path, CASE), "--as", "ubio-s3:24m")
        said, entry = omnicalc("models"), next(m for m in list_models() if m.tag == "24m")
        assert f"{entry.full_name}  (installed)" in said and "24m  (not fetched)" not in said
        assert "ok, " in omnicalc("models", "--verify", entry.full_name)
        assert "not measured here" in omnicalc("models", "ubio-s3:24m")


class TestHeads:
    def test_aliases_as_in_the_release(self, tmp_path):
        tensors = published_tensors(CASE)
        for key in [k for k in tensors if ".svp." in k]:
            tensors[key.replace(".svp.", ".tzvpd.")] = tensors.pop(key)
        config = config_with(dataset_name_list="omol25,tzvpd,tzvpd-small")
        omnicalc("models", "import", write_published(tmp_path, CASE, config=config, tensors=tensors), "--as", "a:b")
        potential = load_potential("a:b", dtype="float64")
        assert list(potential.heads) == ["omol25", "tzvpd", "svp-enhance", "tzvpd-small", "tzvpd-forceatomfilter"]
        energies = {head: energy("a:b", head) for head in potential.heads}
        assert energies["tzvpd-small"] == energies["tzvpd"] != energies["omol25"]
        ours, theirs = (reference_table(name).energies for name in ("svp", "tzvpd"))
        references = sum(2 * t["H"] + t["O"] for t in (ours,)) - sum(2 * t["H"] + t["O"] for t in (theirs,))
        assert energies["svp-enhance"] - energies["tzvpd"] == pytest.approx(references, abs=1e-9)

    def test_shared_head(self, tmp_path):
        config = config_with(dataset_name_list="omol25,svp,tzvpd", head_cfg_str="reweight;share")
        omnicalc("models", "import", write_published(tmp_path, CASE, config=config), "--as", "a:b")
        ours, theirs = (reference_table(name).energies for name in ("tzvpd", "omol25"))
        references = 2 * ours["H"] + ours["O"] - 2 * theirs["H"] - theirs["O"]
        assert energy("a:b", "tzvpd") - energy("a:b", "omol25") == pytest.approx(references, abs=1e-9)

    def test_elements_absent_from_a_fit(self, tmp_path):
        omnicalc("models", "import", write_published(tmp_path, CASE), "--as", "a:b")
        helium = Atoms("He", calculator=OmniCalc("a:b", head="svp"))
        with pytest.raises(InputError, match="a:b@.* does not know element He.*head='omol25'"):
            helium.get_potential_energy()
        assert "He" not in reference_table("svp").energies and "Li" not in reference_table("tzvpd").energies
        assert table_names() == ["omol25", "svp", "tzvpd", "oc20", "oc22"]

    def test_reference_energies(self):
        assert reference_table("omol25").energies["H"] == -15.9710732
        assert reference_table("SVP-enhance").energies["H"] == -372.43346 * 0.0433634
        assert reference_table("deshaw_120") is None and len(reference_table("omol25").energies) == 83

    def test_unknown_head(self, tmp_path):
        tensors = {k.replace(".svp.", ".mine."): v for k, v in published_tensors(CASE).items()}
        file = write_published(tmp_path, CASE, config=config_with(dataset_name_list="omol25,mine"), tensors=tensors)
        message = refused(WeightsError, file, match="no reference energies are known for head mine")
        assert "--zero-references" in message and "tzvpd" in message
        omnicalc("models", "import", file, "--as", "a:b", "--zero-references")
        assert abs(energy("a:b", "mine")) < 100 < abs(energy("a:b", "omol25"))
        with pytest.raises(InputError, match="unknown head 'svp'; a:b@.* has: omol25, mine"):
            Atoms("He", calculator=OmniCalc("a:b", head="svp")).get_potential_energy()


def energy(name: str, head: str) -> float:
    water = Atoms("OH2", [(0, 0, 0), (0.76, 0.59, 0), (-0.76, 0.59, 0)])
    water.calc = OmniCalc(name, head=head, device="cpu", dtype="float64")
    return water.get_potential_energy()


class TestConfigs:
    def test_tensors_that_do_not_fit_are_all_named(self, tmp_path):
        tensors = published_tensors(CASE)
        del tensors["decoder.mix_cm.0.bias"], tensors["decoder.decoder.norm_final.affine_bias"]
        tensors["decoder.decoder.blocks.0.surprise"] = torch.zeros(2)
        tensors["decoder.decoder.blocks.1.ga.proj_value.weight"] = torch.zeros(3, 16, 15)
        message = refused(WeightsError, write_published(tmp_path, CASE, tensors=tensors), match="nothing was loaded")
        for part in (
            "missing system_embedding.mix.bias (16,)",
            "missing norm_final.beta",
            "unexpected blocks.0.surprise (2,) (decoder.decoder.blocks.0.surprise)",
            "blocks.1.attention.value.weight has shape (3, 16, 15), the config asks for (3, 16, 16)",
        ):
            assert part in message
        assert message.count("\n") == 4

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_layers": 3}, "missing blocks.2.attention"),
            ({"num_layers": 1}, "unexpected blocks.1.attention"),
            ({"dataset_name_list": "omol25"}, "unexpected energy_heads.svp"),
            ({"dataset_name_list": "omol25,svp,oc20"}, "missing energy_heads.oc20"),
            ({"max_radius": 6.0}, "has 32 points to 4.5 Å, the config asks for 32 to 6 Å .up to 1.5 Å apart"),
            ({"with_cluster": "node"}, "missing long_blocks.0"),
            ({"tp_type": "QKdot_alpha"}, "missing blocks.0.gate.radial_project"),
            ({"irreps_node_embedding": "16x0e+16x1e"}, "has shape"),
            ({"tp_type": "QK_beta"}, "tp_type 'QK_beta' is not supported; supported: QK_alpha, QKdot_alpha, QKdotS"),
            ({"tp_type": "QK_alpha+gumbel"}, "suffix of tp_type 'gumbel' is not supported; supported: softplus"),
            (
                {"tp_type": "QK_alpha+softplus+sigmoid"},
                "softplus.sigmoid' is not supported: one of softplus and sigmoid",
            ),
            ({"attn_type": "second-order"}, "attn_type 'second-order' is not supported"),
            ({"attn_type": "zero-order+zero-order+zero-order"}, "attn_type .* is not supported; one kind, or two"),
            ({"name": "e2formerv2"}, "name 'e2formerv2' is not supported: .* another envelope .* write name: e2former"),
            ({"name": "e2former_v3"}, "name 'e2former_v3' is not supported; supported: e2former$"),
            ({"with_cluster": "mixcluster"}, "with_cluster 'mixcluster' is not supported"),
            ({"with_moe": "escn"}, "with_moe 'escn' is not supported; supported: None, False, painn"),
            ({"encoder": "dit"}, "encoder 'dit' is not supported"),
            ({"loss_unit": "kcal/mol"}, "loss_unit 'kcal/mol' is not supported; supported: ev"),
            ({"backbone": "sca"}, "backbone 'sca' is not supported; supported: e2former"),
            ({"irreps_node_embedding": "16x0e+8x1e"}, "irreps '16x0e.8x1e' are not supported; one multiplicity"),
            ({"irreps_node_embedding": "16x0e+16x1e+16x2e+16x3e"}, "l_max = 3 is not supported; choose one of: 1, 2"),
            ({"num_layers": "two"}, "num_layers = 'two': a whole number above zero is needed"),
            ({"max_radius": -1}, "max_radius = -1: a number above zero is needed"),
            ({"AutoGradForce": "False"}, "AutoGradForce = 'False': true or false is needed"),
            ({"dataset_name_list": ""}, "dataset_name_list = '': names of heads"),
            ({"dataset_name_list": ["omol25", "svp"]}, "= .'omol25', 'svp'.: names .* commas .* as in omol25,svp"),
            ({"dataset_name_list": "omol25,m06.2x"}, "heads: 'm06.2x' given; .* a text without '.'"),
            ({"dataset_name_list": "omol25,train"}, "heads: 'train' given; .* no word of torch's own"),
            ({"backbone_config": None}, "the table 'backbone_config' is missing"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_configs_that_do_not_match(self, tmp_path, changes, message):
        refused(WeightsError, write_published(tmp_path, CASE, config=config_with(**changes)), match=message)

    def test_a_setting_that_is_missing(self, tmp_path):
        config = config_with()
        del config["backbone_config"]["max_neighbors"]
        file = write_published(tmp_path, CASE, config=config)
        refused(WeightsError, file, match="backbone_config lacks 'max_neighbors'")

    def test_a_setting_that_nothing_reads(self, tmp_path):
        file = write_published(tmp_path, CASE, config=config_with(long_cutoff_lower=0, with_cluster=False))
        omnicalc("models", "import", file, "--as", "a:b")
        config = config_with(long_cutoff_lower=0, with_cluster="node")
        refused(WeightsError, write_published(tmp_path, CASE, config=config), match="long_cutoff_lower = 0: a number")

    def test_without_a_cap_all_lattice_images_count_and_the_card_says_so(self, tmp_path):
        file = write_published(tmp_path, CASE, config=config_with(max_neighbors="None"))
        said = omnicalc("models", "import", file, "--as", "a:b")
        assert "lattice images: all within 4.5 Å; the release stops at 4 shells" in said and "than 1.125 Å" in said
        assert "lattice_images" in omnicalc("models", "a:b")
        assert "lattice images: all within 4.5" not in omnicalc(
            "models", "import", write_published(tmp_path, CASE), "--as", "a:c"
        )

    def test_kernels_in_tp_type_change_nothing(self, tmp_path):
        file = write_published(tmp_path, CASE, config=config_with(tp_type="QK_alpha+triton"))
        omnicalc("models", "import", file, "--as", "a:b")
        omnicalc("models", "import", write_published(tmp_path / "plain", CASE), "--as", "a:c")
        assert energy("a:b", "svp") == energy("a:c", "svp")

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            (None, InputError, "config.yaml: no such file.*--config config.yaml"),
            ("a: [1", WeightsError, "config.yaml: not a YAML file"),
            ("just words", WeightsError, "a table of settings is needed"),
            ("defaults: [backbone_config: e2former]", WeightsError, "this is the file that composes"),
            ("!!python/object/apply:os.system [touch HACKED]", WeightsError, "not a YAML file"),
            (b"\xff\xfe\x00", InputError, "cannot be read as text"),
        ],
    )
    def test_files_that_are_no_config(self, tmp_path, monkeypatch, text, kind, message):
        monkeypatch.chdir(tmp_path)
        file = write_published(tmp_path, CASE)
        (tmp_path / "config.yaml").unlink()
        if text is not None:
            (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(kind, file, match=message)
        assert not (tmp_path / "HACKED").exists()

    def test_without_pyyaml(self, tmp_path, monkeypatch):
        file = write_published(tmp_path, CASE)
        monkeypatch.setitem(sys.modules, "yaml", None)
        refused(InputError, file, match="needs PyYAML; type: pip install pyyaml")


class Touch:
    """Unpickling this makes a file."""

    def __reduce__(self):
        return os.system, ("touch HACKED",)


class TestCheckpoints:
    @pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
    @pytest.mark.parametrize("where", ["state", "model", "instead"])
    def test_code_in_a_pickle_is_refused_and_does_not_run(self, tmp_path, monkeypatch, write, where):
        monkeypatch.chdir(tmp_path)
        file = write_published(tmp_path, CASE)
        tensors = {"a": torch.zeros(1)}
        content = {"model": tensors | ({"b": Touch()} if where == "model" else {}), "state": Touch()}
        write(Touch() if where == "instead" else content, file)
        refused(WeightsError, file, match="refused, because it holds more than tensors|not a checkpoint")
        assert not (tmp_path / "HACKED").exists()
        if write is torch.save:  # the file would have run it
            torch.load(file, weights_only=False)
            assert (tmp_path / "HACKED").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not a checkpoint that torch.save wrote"),
            (b"<html>404: not found</html>", "not a checkpoint that torch.save wrote"),
            (bytes(range(256)) * 16, "not a checkpoint that torch.save wrote"),
            ({"state_dict": {}}, "'model' with the tensors is needed, found state_dict$"),
            (
                {"ema": {"a": torch.zeros(1)}},
                r"if 'ema' holds them, type .*torch.save\({'model': found\['ema'\]}, 'model.pt'",
            ),
            ({"a": torch.zeros(1)}, r"found 1 tensors without it; .*torch.save\({'model': found}, 'model.pt'\)"),
            (
                {"model": {"module.a": torch.zeros(1)}},
                r"begin with 'module.', .* off, .*name.removeprefix\('module.'\)",
            ),
            ({"model": {"a": torch.eye(2).to_sparse()}}, r"sparse, quantised or without values: a; .*to_dense"),
            ({"model": {"a": torch.zeros(2, device="meta")}}, "sparse, quantised or without values: a;"),
            ({"model": {"a": torch.zeros(2).to(torch.float8_e5m2)}}, "sparse, quantised or without values: a;"),
            ({"model": {"a": torch.tensor([torch.nan + 1j])}}, "values that are not finite: a$"),
            ([1, 2], "'model' with the tensors is needed, found list"),
            ({"model": {}}, "'model' has entries that are no tensors: none at all"),
            ({"model": {"a": 1.0, "b": torch.zeros(1)}}, "entries that are no tensors: a$"),
            ({"model": {"a": torch.tensor([1.0, torch.nan])}}, "values that are not finite: a$"),
        ],
        ids=range(15),
    )
    def test_files_that_are_no_checkpoint(self, tmp_path, content, message):
        file = write_published(tmp_path, CASE)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        refused(WeightsError, file, match=message)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
    def test_learned_tensors_that_are_no_real_numbers(self, tmp_path, dtype):
        tensors, name = published_tensors(CASE), "decoder.decoder.blocks.1.ga.proj_value.weight"
        tensors[name] = tensors[name].to(dtype)
        kind = str(dtype).removeprefix("torch.")
        file = write_published(tmp_path, CASE, tensors=tensors)
        refused(WeightsError, file, match=f"attention.value.weight holds {kind}, floating-point numbers are needed")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, tmp_path, dtype):
        """The radial grid is rounded too, by up to 0.004 Å, and no other cutoff."""
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in published_tensors(CASE).items()}
        file = write_published(tmp_path, CASE, tensors=tensors)
        omnicalc("models", "import", file, "--as", "a:half")
        rounded = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        rounded["decoder.decoder.rbf.offset"] = published_tensors(CASE)["decoder.decoder.rbf.offset"]
        omnicalc("models", "import", write_published(tmp_path / "f", CASE, tensors=rounded), "--as", "a:single")
        assert energy("a:half", "omol25") == energy("a:single", "omol25")
        other = write_published(tmp_path, CASE, tensors=tensors, config=config_with(max_radius=4.6))
        refused(WeightsError, other, match=r"to 4.5 Å, the config asks for 32 to 4.6 Å \(up to 0.1")

    def test_truncated_or_absent(self, tmp_path):
        file = write_published(tmp_path, CASE)
        file.write_bytes(file.read_bytes()[:-1000])
        refused(WeightsError, file, match="not a checkpoint")
        refused(InputError, tmp_path / "nowhere.pt", match="nowhere.pt: no such file")
        refused(InputError, tmp_path, match="no such file")

    def test_a_bit_that_flipped(self, tmp_path):
        """torch.load reads such a file without a word, and the network computes something else."""
        file = write_published(tmp_path, CASE)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        torch.load(file, weights_only=True)
        refused(WeightsError, file, match="model.pt: damaged: checksums do not fit the bytes .*download it again")


class TestPlaces:
    def test_a_name_that_is_taken(self, tmp_path, home):
        file = write_published(tmp_path, CASE)
        omnicalc("models", "import", file, "--as", "ubio-s3:24m")
        message = refused(WeightsError, file, match="already on this machine.*nothing was written")
        assert "--model ubio-s3:24m" in message and f"rm -r '{home}" in message
        other = write_published(tmp_path / "other", CASE, config=config_with(max_neighbors=64))
        refused(WeightsError, other, match="already on this machine")  # a name never becomes another model
        refused(WeightsError, file, "--as", "ubio-s3:small", match="ubio-s3:small@0.3 is already on this machine")
        refused(WeightsError, file, "--as", "atom:small", match="atom:small is a decoder on this machine; nothing was")

    @pytest.mark.parametrize("name", ["ubio-s3", "ubio-s3:24m@1", "a b:c", "a:../c", "a:b--c", ":", "a:b:c", "a:-b"])
    def test_names_that_cannot_be(self, tmp_path, name):
        refused(WeightsError, write_published(tmp_path, CASE), "--as", name, match="name and a tag|no model name")

    def test_no_permission(self, tmp_path, home, monkeypatch):
        file = write_published(tmp_path, CASE)
        home.parent.mkdir()
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != home.parent and real(path, mode))
        message = refused(InputError, file, match="cannot be written to; type OMNICALC_HOME=FOLDER")
        assert str(home) in message

    def test_a_file_in_the_way(self, tmp_path, monkeypatch):
        monkeypatch.setenv("OMNICALC_HOME", str(write_published(tmp_path, CASE)))
        refused(InputError, tmp_path / "model.pt", match="model.pt is not a folder")

    def test_a_full_disk_leaves_nothing(self, tmp_path, home, monkeypatch):
        def full(path, write):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("omnicalc.published.install.write_atomically", full)
        refused(InputError, write_published(tmp_path, CASE), match="No space left on device.; nothing was installed")
        assert not home.exists()

    def test_an_import_that_was_killed_is_no_model(self, tmp_path, home):
        omnicalc("models", "import", write_published(tmp_path, CASE), "--as", "a:b")
        folder = resolve("a:b")[0]
        folder.rename(home / f".{folder.name}.part")
        assert "a:b" not in omnicalc("models")
        omnicalc("models", "import", tmp_path / "model.pt", "--as", "a:b")
        assert [path.name for path in home.iterdir()] == [folder.name]


def test_help_and_lists_never_load_torch():
    code = "import sys; from omnicalc.cli import group\ntry: group(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'yaml', 'huggingface_hub'} & set(sys.modules))"
    for words in (["models", "import", "--help"], ["models", "fetch", "--help"]):
        process = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert process.stdout.splitlines()[-1] == "set()", process.stderr
