"""Settings of OMNIMOL: what the paper says, and every choice that it leaves open as a field of its own.

Two presets: ``paper`` is the literal reading, ``smooth`` is what our own weights and molecular dynamics use: all
neighbours within a radius under a smooth weight in place of the 15 nearest, softened inverse powers, angles as a bias.
"""

from dataclasses import dataclass, fields

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import ConfigTable, check_heads, check_known, is_number, made
from omnicalc.models.cube_rotations import ROTATIONS

FORCES = ("gradient", "direct")
NEIGHBORS = ("nearest", "cutoff")
ANGLES = ("none", "row", "flat", "bias")
BIASES = ("per-head", "scalar")
REPULSIONS = ("none", "zbl", "core")
N_POWERS = 7  # r, 1/r, 1/r^2, 1/r^6, g/r, g/r^2, g/r^6


@dataclass(frozen=True)
class OmnimolConfig(ConfigTable):
    """One OMNIMOL network. Lengths in Å, energies in eV. The defaults are the preset ``smooth`` of size S."""

    family = "omnimol"
    heads: tuple[str, ...]  # levels of theory, one output of the energy head (and of the force head) each
    forces: str = "gradient"  # conservative, F = -dE/dr; or "direct", a force head of its own
    width: int = 128
    layers: int = 8
    local_layers: int = 2
    head_layers: int = 2
    attention_heads: int = 8
    mlp_ratio: float = 2
    tokens: int = 4  # learned global tokens; their classifier is gone, but they keep the checkpoint's shapes
    mlp_drop: float = 0.0
    attn_drop: float = 0.0
    # what enters
    positions: bool = False  # MLP of r - mean(r), and r_i - r_j among the pair features: orientation matters then
    input_norm: bool = False  # DynTanh on raw coordinates, as in PET; it saturates beyond about 4 Å
    separate_charge_spin: bool = False  # one MLP each for charge and spin, or one for both
    # pair features
    n_rbf: int = 31
    sigma_min: float = 0.1
    sigma_max: float = 10.0
    soft_core: float = 0.5  # c of (r^12 + c^12)^(1/12) in the inverse powers; 0: none
    shared_pair_scalar: bool = True  # one g(x_i, x_j) for local block and bias, or one each
    bias: str = "per-head"  # or "scalar": one bias for all attention heads
    # local block
    neighbors: str = "cutoff"  # all within ``cutoff``, weighted; or "nearest": the ``k`` nearest
    k: int = 15
    cutoff: float = 6.0
    max_neighbors: int | None = None  # with "cutoff": more than that are refused
    pool_epsilon: float = 1.0  # of the weighted mean over neighbours; with "nearest" it is 1e-9 k
    angles: str = "bias"
    angle_degree: int = 4  # "bias": Legendre polynomials of the cosine up to this degree
    angle_width: int = 32
    # output
    energy_scale: float = 1.0  # sigma, eV
    energy_shift: float = 0.0  # mu, eV per molecule
    force_scale: float = 1.0  # sigma_F of direct forces, eV/Å
    remove_net_force: bool = True  # of direct forces, per structure
    remove_torque: bool = True
    rotations: int = 1  # direct: predictions averaged over that many rotations of the cube
    repulsion: str = "none"  # between atoms closer than ``repulsion_reach`` times the sum of covalent radii
    repulsion_reach: float = 0.8
    core_height: float = 100.0  # eV, of the repulsion "core" at zero distance
    # fine-tuning
    adapter: bool = False  # gated MLP between embedding and global blocks
    # memory
    pair_chunk: int = 32768  # pairs whose hidden layers are held at once; more are recomputed in the backward pass

    def __post_init__(self):
        self._check_whole(
            "width", "layers", "attention_heads", "n_rbf", "k", "angle_degree", "angle_width", "pair_chunk"
        )
        self._check_whole("rotations")
        self._check_whole("local_layers", "head_layers", "tokens", least=0)
        self._check_positive("mlp_ratio", "sigma_min", "sigma_max", "cutoff", "pool_epsilon", "energy_scale")
        self._check_positive("force_scale", "repulsion_reach", "core_height")
        self._check_probabilities("mlp_drop", "attn_drop")
        for key in ("soft_core", "energy_shift"):
            if not is_number(getattr(self, key)):
                raise WeightsError(f"{key} = {getattr(self, key)!r} given; a finite number is needed")
        if self.soft_core < 0:
            raise WeightsError(f"soft_core = {self.soft_core!r} given; a number of at least 0 is needed")
        if self.sigma_min > self.sigma_max:
            raise WeightsError(f"sigma_min = {self.sigma_min} given; at most sigma_max = {self.sigma_max} is needed")
        self._check_choices(
            forces=FORCES, neighbors=NEIGHBORS, angles=ANGLES, bias=BIASES, repulsion=REPULSIONS, rotations=ROTATIONS
        )
        for key in (f.name for f in fields(self) if f.type is bool):
            if type(getattr(self, key)) is not bool:
                raise WeightsError(f"{key} = {getattr(self, key)!r} given; true or false is needed")
        check_heads(self.heads)
        self._check_multiple("width", of="attention_heads")
        if self.max_neighbors is not None:
            self._check_whole("max_neighbors")
        if self.neighbors == "cutoff" and self.angles in ("row", "flat"):
            raise WeightsError(f"angles = '{self.angles}' needs ranked neighbours: neighbors = 'nearest'")
        if self.forces == "direct" and not self.positions:
            raise WeightsError(
                "forces = 'direct' needs positions = true: without an orientation there is no direction to predict"
            )
        if self.input_norm and not self.positions:
            raise WeightsError("input_norm = true needs positions = true: it is the norm of the coordinates")

    @classmethod
    def from_dict(cls, table: dict) -> "OmnimolConfig":
        """Strict: a key that is not a setting is an error that names it.

        With ``preset`` ("paper" or "smooth") and ``size`` ("tiny", "S" or "M") among the keys, the other keys change
        that preset.
        """
        table = dict(table)
        check_known(cls.family, cls, table, besides=("preset", "size"))
        if "heads" not in table:
            raise WeightsError("omnimol settings lack heads, the list of levels of theory")
        if "preset" in table or "size" in table:
            forces = table.get("forces", "gradient")
            table = preset(table.pop("preset", "smooth"), table.pop("size", "S"), forces) | table
        return made(cls, table)

    @property
    def n_pair_features(self) -> int:
        """41 with displacements, 38 without, for 31 Gaussians."""
        return (3 if self.positions else 0) + N_POWERS + self.n_rbf

    @property
    def n_local_features(self) -> int:
        """Pair features, and the angles that are appended to them."""
        appended = {"row": self.k, "flat": self.k * (self.k - 1) // 2}
        return self.n_pair_features + appended.get(self.angles, 0)

    @property
    def n_biases(self) -> int:
        return self.attention_heads if self.bias == "per-head" else 1

    @property
    def epsilon(self) -> float:
        """Added to the number (or weight) of neighbours in the mean over them."""
        return self.pool_epsilon if self.neighbors == "cutoff" else 1e-9 * self.k

    def centre_chunk(self, k: int) -> int:
        """Centres with ``k`` neighbours each that are worked on at once: by their hidden layers and their logits."""
        logits = self.attention_heads * k * k
        return max(1, min(self.pair_chunk // k, 2 * self.width * self.pair_chunk // logits))

    @property
    def drops(self) -> dict[str, float]:
        return {"mlp_drop": self.mlp_drop, "attn_drop": self.attn_drop}


_PRESETS = {
    "paper": {
        "soft_core": 0.0, "neighbors": "nearest", "angles": "row", "remove_net_force": False, "remove_torque": False,
    },
    "smooth": {},
}  # fmt: skip
_SIZES = {
    "tiny": {
        "width": 48, "layers": 2, "local_layers": 1, "head_layers": 1, "attention_heads": 4, "cutoff": 4.5,
        "angle_width": 16,
    },
    "S": {"width": 128, "layers": 8, "attention_heads": 8},
    "M": {"width": 512, "layers": 12, "attention_heads": 16},
}  # fmt: skip


def preset(name: str, size: str = "S", forces: str = "gradient") -> dict:
    """The settings of a preset, without ``heads``: D for direct forces, the invariant CONS for gradients."""
    for key, value, allowed in (("preset", name, _PRESETS), ("size", size, _SIZES)):
        if value not in allowed:
            raise WeightsError(f"{key} '{value}' given; choose one of: {', '.join(allowed)}")
    direct = forces == "direct"
    table = {"forces": forces, "positions": direct, **_PRESETS[name], **_SIZES[size]}
    return {**table, "angles": "none"} if direct else table
