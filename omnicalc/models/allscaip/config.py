"""Settings of AllScAIP (arXiv:2603.06567); lengths in Å."""

from collections.abc import Mapping
from dataclasses import dataclass

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import ConfigTable, check_heads, check_known, made
from omnicalc.models.cube_rotations import ROTATIONS

ACTIVATIONS = ("gelu", "relu", "squared_relu", "leaky_relu", "smelu", "star_relu")
NORMS = ("rms", "layer", "none")
RANKINGS = ("near", "all", "hard")
RADIALS = ("gaussian", "sigmoid", "linear_sigmoid")
CHARGES, SPINS = range(-100, 101), range(101)  # rows of the tables; spin 0 stands for "not given"
SPARE_RANKS = 20  # how many candidates beyond ``neighbors`` the ranking "near" looks at

PRESETS = {
    "tiny": {
        "width": 48, "layers": 2, "attention_heads": 4, "cutoff": 5.0, "neighbors": 16, "n_radial": 32,
        "direction_degrees": 4, "order_degrees": 6, "angular": (4, 4, 4), "smooth": True, "max_elements": 55,
    },
    "small": {
        "width": 512, "layers": 6, "attention_heads": 8, "angular": (20, 10, 4, 10, 20), "sinc": 32,
        "max_slots": 50, "image_limit": True,
    },
    "medium": {"width": 640, "layers": 10, "attention_heads": 10, "max_slots": 50, "image_limit": True},
}  # fmt: skip


@dataclass(frozen=True)
class AllScAIPConfig(ConfigTable):
    """One AllScAIP network. The defaults are the release's, but for what a preset or :func:`from_published` says."""

    family = "allscaip"
    heads: tuple[str, ...]  # levels of theory, one energy head each
    width: int = 512
    layers: int = 6
    attention_heads: int = 8
    activation: str = "gelu"
    norm: str = "rms"
    cutoff: float = 6.0  # of the edges; the list of candidates reaches farther, see :attr:`candidate_cutoff`
    neighbors: int = 30  # an atom's rank from which on it is no neighbour
    ranking: str = "near"  # soft ranks among the nearest (a bump), or among "all" (a sigmoid), or "hard" ones
    rank_scale: float = 0.2  # Å over which two candidates change ranks
    limit_scale: float = 0.1  # softness of the maximum of two ranks and distance
    envelope: bool = True  # keys fade out towards the limit
    max_slots: int | None = None  # parity with the release: neighbours of an atom beyond so many slots are dropped
    image_limit: bool = False  # parity with the release: lattice images within ceil(cutoff / height) cells alone
    smooth: bool = False  # without what makes the release's energy jump
    radial: str = "gaussian"
    n_radial: int = 512
    direction_degrees: int = 6  # harmonics of the edge direction, l = 0 ..
    order_degrees: int = 10  # bond order parameters, l = 0 ..
    angular: tuple[int, ...] = ()  # channels of each attention head per Legendre degree; empty: no angular encoding
    sinc: int = 0  # frequencies of the distance encoding between all atoms; 0: none
    node_attention: bool = True  # all atoms of a structure see each other
    residual_scaling: bool = True
    ffn_multiplier: int = 2
    head_multiplier: int = 2
    max_elements: int = 110  # rows of the table by atomic number
    forces: str = "gradient"  # or "direct"
    reduce: str = "sum"  # or "mean" over the atoms
    rotations: int = 1  # predictions averaged over that many rotations of a cube, in evaluation
    scale: float = 1.0  # eV (eV/Å) per unit of the network's energy (force)
    isolated: Mapping[str, Mapping[str, float]] | None = None  # of lone atoms of head omol: symbol -> charge -> eV

    def __post_init__(self):
        self._check_whole("width", "layers", "attention_heads", "neighbors", "direction_degrees", "order_degrees")
        self._check_whole("max_elements", "rotations")
        self._check_whole("n_radial", least=2)
        self._check_whole("ffn_multiplier", "head_multiplier", "sinc", least=0)
        if self.max_slots is not None:
            self._check_whole("max_slots")
        self._check_positive("cutoff", "rank_scale", "limit_scale", "scale")
        self._check_choices(
            activation=ACTIVATIONS, norm=NORMS, ranking=RANKINGS, radial=RADIALS, forces=("gradient", "direct"),
            reduce=("sum", "mean"), rotations=ROTATIONS,
        )  # fmt: skip
        check_heads(self.heads)
        self._check_widths()
        if self.smooth:
            self._check_smooth()

    def _check_widths(self) -> None:
        self._check_multiple("width", of="attention_heads")
        channels = self.width // self.attention_heads
        if self.angular and (sum(self.angular) != channels or min(self.angular) < 0):
            raise WeightsError(
                f"angular = {list(self.angular)} must share out the {channels} channels of an attention head "
                f"(width / attention_heads) to Legendre degrees, but adds up to {sum(self.angular)}"
            )

    def _check_smooth(self) -> None:
        jumps = {
            "ranking": self.ranking != "near",
            "envelope": not self.envelope,
            "max_slots": self.max_slots is not None,
            "image_limit": self.image_limit,
        }
        wrong = [f"{key} = {getattr(self, key)!r}" for key, jumps_so in jumps.items() if jumps_so]
        if wrong:
            raise WeightsError(f"smooth = true, but with {', '.join(wrong)} the energy jumps; leave these settings out")

    @classmethod
    def from_dict(cls, table: dict) -> "AllScAIPConfig":
        """Strict: a key that is not a setting is an error that names it. ``preset`` stands for its settings."""
        table = dict(table)
        preset = table.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise WeightsError(f"preset = {preset!r} given; choose one of: {', '.join(PRESETS)}")
        check_known(cls.family, cls, table)
        if "heads" not in table:
            raise WeightsError("allscaip settings lack 'heads', the names of the levels of theory")
        return made(cls, {**PRESETS.get(preset, {}), **table})

    @property
    def candidate_cutoff(self) -> float:
        """Radius within which an atom can change the rank of an edge: farther ones are farther by more than a step."""
        if self.ranking == "hard":
            return self.cutoff
        # where the bump is one, or where what is left of the sigmoid, exp(-40), is beyond float64
        return self.cutoff + (4.0 if self.ranking == "near" else 40.0) * self.rank_scale
