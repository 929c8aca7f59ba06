"""``omnicalc doctor`` finds what is wrong, says what to do, and never stops half-way."""

import importlib
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
from click.testing import CliRunner

from omnicalc import doctor, registry, self_test
from omnicalc.calculator import OmniCalc
from omnicalc.cli import group
from omnicalc.errors import KernelError
from omnicalc.kernels.native import library


def said() -> tuple[int, str]:
    result = CliRunner().invoke(group, ["doctor"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_all_is_well():
    start = time.perf_counter()
    code, text = said()
    assert code == 0, text
    assert text.rstrip().splitlines()[-1].startswith("all is well")
    for word in (
        "torch ",
        "vesin",
        "CPU kernel",
        "ubio-s3:small@0.3",
        "float32",
        "gradient",
        "dynamics",
        "ms per force",
    ):
        assert word in text
    assert "!" not in text and time.perf_counter() - start < 20


def test_says_things_as_it_finds_them():
    """The packages stand there before torch is loaded, let alone the self-test done."""
    code = (
        "import sys\n"
        "from omnicalc.doctor import sections\n"
        "title, findings = next(sections())\n"
        "print(title, len(list(findings)), {'torch', 'ase', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"installed {len(doctor.PACKAGES) + 2} set()\n"


class TestPackages:
    def versions(self, monkeypatch, **versions: str | None):
        true = metadata.version

        def version(name):
            if versions.get(name, "") is None:
                raise metadata.PackageNotFoundError(name)
            return versions.get(name) or true(name)

        monkeypatch.setattr(doctor.metadata, "version", version)

    def test_a_needed_one_is_missing(self, monkeypatch):
        self.versions(monkeypatch, vesin=None)
        code, text = said()
        assert code == 2 and "self-test" not in text
        assert "! vesin" in text and "-> pip install 'vesin>=" in text and "to mend: vesin" in text

    def test_a_needed_one_is_too_old(self, monkeypatch):
        self.versions(monkeypatch, torch="1.13.1+cpu")
        code, text = said()
        assert code == 2 and "1.13.1+cpu; 2." in text and "or newer is needed" in text and "--upgrade" in text

    def test_optional_ones(self, monkeypatch):
        self.versions(monkeypatch, pyscf=None, openmm=None, triton=None, h5py=None, lmdb=None)
        found = {each.name: each for each in doctor.packages()}
        assert not any(each.problem for each in found.values())
        assert "not installed (for labelling" in found["pyscf"].text
        assert "not installed (for the OpenMM interface)" in found["openmm"].text

    def test_what_comes_with_torch_is_renewed_with_it(self, monkeypatch):
        """torch 2.5 asks for triton 3.1.0 and no other."""
        self.versions(monkeypatch, triton="3.1.0")
        found = next(each for each in doctor.packages() if each.name == "triton")
        assert "3.1.0; 3.4 or newer" in found.text and found.advice == "pip install torch --upgrade"

    @pytest.mark.parametrize(
        ("low", "high"), [("2.9", "2.13.0+cpu"), ("0.4.3", "0.8.0"), ("3.8", "3.8.0rc1"), ("1.26", "2.4.6")]
    )
    def test_versions_compare_as_numbers(self, low, high):
        assert doctor._numbers(low) <= doctor._numbers(high)
        assert not doctor._numbers("2.13") < doctor._numbers("2.9")

    def test_every_bound_is_found(self):
        bounds = doctor._least_versions()
        needed = [package.name.lower() for package in doctor.PACKAGES if package.extra is None]
        assert set(needed) <= set(bounds) and bounds["torch"].startswith("2.")


class TestMachine:
    def test_too_many_threads(self, monkeypatch):
        import torch

        monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
        first = next(doctor.machine())
        assert "4096 threads" in first.text and "OMP_NUM_THREADS" in first.advice and not first.problem

    def test_a_gpu_that_torch_cannot_use(self, monkeypatch):
        monkeypatch.setattr(doctor.os.path, "exists", lambda path: True)
        found = doctor._no_gpu(None)
        assert "built for CPUs only" in found.text and "pytorch.org" in found.advice

    def test_no_kernel_is_no_problem(self, monkeypatch):
        def none():
            raise KernelError("was not built: install g++")

        monkeypatch.setattr(library, "instruction_set", none)
        (found,) = doctor.cpu_kernel()
        assert found.advice == "was not built: install g++" and not found.problem

    def test_a_kernel_that_was_asked_for_in_vain(self, monkeypatch):
        monkeypatch.setenv(library.INSTRUCTIONS, "mmx")
        (found,) = doctor.cpu_kernel()
        assert found.problem and "OMNICALC_NATIVE=mmx" in found.advice


def test_damaged_weights(monkeypatch, tmp_path):
    name = "ubio-s3-small-0.1"
    (tmp_path / name).mkdir()
    for file in (registry.BUNDLED / name).iterdir():
        (tmp_path / name / file.name).write_bytes(file.read_bytes())
    path = tmp_path / name / registry.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    code, text = said()
    assert code == 2 and "! ubio-s3:small@0.1" in text and "pip install --force-reinstall" in text
    assert "! self-test" in text and "to mend: ubio-s3:small@0.1, self-test" in text


def test_damaged_decoder(monkeypatch, tmp_path):
    name = "atom-small-0.1"
    (tmp_path / name).mkdir()
    for file in (registry.BUNDLED / name).iterdir():
        (tmp_path / name / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    assert [found.name for found in doctor.weights() if not found.problem] == ["atom:small@0.1"]
    with (tmp_path / name / registry.WEIGHTS).open("ab") as file:
        file.write(b"x")
    assert "atom:small@0.1" in [found.name for found in doctor.weights() if found.problem]


def test_no_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    (found,) = doctor.weights()
    assert found.problem and "install OmniCalc again" in found.advice


class Wrong(OmniCalc):
    """Forces as they must not be."""

    scale, late = 1.0, False

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        now = self.results.get("forces")
        if now is None:
            return
        self.results["forces"] = self.scale * (getattr(self, "before", now) if self.late else now)
        self.before = now


class TestSelfTest:
    """Each check notices what it is for."""

    @pytest.fixture
    def water(self):
        return self_test.read(self_test.WATER)

    def test_forces_that_are_off(self, water):
        wrong = Wrong("ubio-s3")
        wrong.scale = 1.01
        good = OmniCalc("ubio-s3", dtype="float64")
        assert self_test.precision(water, good, wrong).problem
        assert not self_test.precision(water, good, OmniCalc("ubio-s3")).problem

    def test_a_gradient_that_is_none(self, water):
        wrong = Wrong("ubio-s3", dtype="float64")
        wrong.scale = 1.01
        found = self_test.finite_difference(water, wrong)
        assert found.problem and "cannot be trusted" in found.advice

    def test_dynamics_that_loses_energy(self, water):
        wrong = Wrong("ubio-s3")
        wrong.late = True
        assert self_test.conservation(water, wrong).problem

    def test_velocities_need_no_ase_newer_than_the_oldest_allowed(self, water, monkeypatch):
        """What draws them there has changed its name in 3.29."""
        monkeypatch.setitem(sys.modules, "ase.md.velocitydistribution", None)
        importlib.reload(self_test)
        assert not self_test.conservation(water, OmniCalc("ubio-s3")).problem

    def test_a_defect_is_a_finding(self, monkeypatch):
        def broken(device):
            yield replace(doctor.Finding("first", "well"))
            raise TypeError("two\nlines")

        monkeypatch.setattr(self_test, "findings", broken)
        code, text = said()
        assert code == 2 and "  first" in text and "failed with TypeError: two lines" in text

    def test_an_unknown_device(self):
        result = CliRunner().invoke(group, ["doctor", "--device", "abacus"])
        assert result.exit_code == 2 and "unknown device 'abacus'" in result.output

    def test_the_water_is_what_it_says(self, water):
        assert len(water) == 24 and water.pbc.all()
        assert np.isclose(water.get_volume() / 8, 12.4447**3 / 64, rtol=1e-5)
