"""The native CPU kernel keeps the contract too: the same checks in float32, against the plain float64 model."""

import pytest
import torch

from omnicalc.kernel_choice import KernelChoice

from .checks import EvaluateKernel
from .test_e2former import Bundled, RandomWeights, TestSmallSaltWaterHead, TestSmallWaterHead, TestWideXtbHead

native = pytest.importorskip("omnicalc.kernels.native.library")


class OnNativeKernel:
    """Put before a contract class: float32 runs on the kernel, the float64 reference on plain torch."""

    kernel_rounding = 3e-5  # eV/Å
    energy_rounding = 5e-6  # eV, of an atom

    def make(self, dtype):
        potential = super().make(dtype).requires_grad_(False)
        if dtype == torch.float32:
            potential.kernel = KernelChoice("native")
        return potential

    @pytest.fixture
    def evaluate(self):
        return EvaluateKernel(self.make(torch.float32), self.head)

    def test_float32_is_close_to_float64(self, reference, evaluate):
        from omnicalc.systems import Systems

        systems = Systems.from_atoms(self.box())
        rough, fine = evaluate(systems, stress=True), reference(systems, stress=True)
        assert (rough.energies - fine.energies).abs().max() < self.energy_rounding
        assert 0 < (rough.forces - fine.forces).abs().max() < self.kernel_rounding
        assert (rough.stress - fine.stress).abs().max() < 1e-6


class TestSmallSoftplusNative(OnNativeKernel, RandomWeights):
    config = {}


class TestSoftmaxScalarVectorsNative(OnNativeKernel, RandomWeights):
    config = {"l_max": 1, "weights": "softmax", "values": ["first-order", "zero-order"]}


class TestBothOrdersNative(OnNativeKernel, RandomWeights):
    """Three layers of another width, heads that do not fill a vector, and mixed parities."""

    mirror_symmetric = False
    charge_sensitive = True
    config = {
        "layers": 3, "channels": 24, "attention_heads": 6, "query_width": 3, "value_multiplicity": 2, "l_max": 2,
        "system_input": "head-charge-spin", "values": ["both", "zero-order", "both"],
        "mirror_symmetric": False, "envelope": "poly5",
    }  # fmt: skip


class TestFewHeadsNative(OnNativeKernel, RandomWeights):
    """Heads that fit half a vector of AVX-512 and AVX2, whose queries fill neither one nor four vectors."""

    config = {
        "channels": 24, "attention_heads": 4, "query_width": 5, "value_multiplicity": 2, "weights": "softmax",
        "values": ["both", "first-order"],
    }  # fmt: skip


class TestReleasedArchitectureNative(OnNativeKernel, RandomWeights):
    """Radial networks per block, tables by atomic number, charge and spin."""

    mirror_symmetric = False
    charge_sensitive = True
    config = {
        "elements": None, "channels": 16, "basis": "gaussian", "n_basis": 16, "radial": "per-block",
        "weights": "sigmoid", "mirror_symmetric": False, "type_embedding": False,
        "system_input": "charge-spin", "value_multiplicity": 2,
    }  # fmt: skip


class TestSmallWaterHeadNative(OnNativeKernel, TestSmallWaterHead, Bundled):
    pass


class TestSmallSaltWaterHeadNative(OnNativeKernel, TestSmallSaltWaterHead, Bundled):
    pass


class TestWideXtbHeadNative(OnNativeKernel, TestWideXtbHead, Bundled):
    name = "ubio-s3:wide@0.7"
    kernel_rounding = 2e-4  # 1.1e-4 with forces up to 10.1 eV/Å, where plain torch is off by 4.2e-4


class TestNewestWideXtbHeadNative(OnNativeKernel, TestWideXtbHead, Bundled):
    name = "ubio-s3:wide"
    kernel_rounding = TestWideXtbHeadNative.kernel_rounding
    energy_rounding = 1e-5  # steeper than 0.7: 5.1e-6 of the sodium in that crowded box


del TestSmallWaterHead, TestSmallSaltWaterHead, TestWideXtbHead  # they run in their own file
