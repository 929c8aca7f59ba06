"""Architecture settings of E2Former-V2; section numbers in comments refer to the UBio-MolFM release notes."""

from dataclasses import dataclass

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import ConfigTable, check_choice, check_heads

ENVELOPES = ("poly7", "poly5")
GATES = ("qk", "qkdot", "qkdots")
WEIGHTS = ("softmax", "softplus", "sigmoid", "smooth-softmax")
VALUES = ("first-order", "zero-order", "both")
SYSTEM_INPUTS = ("charge-spin", "head", "head-charge-spin", "none")
FORCE_HEADS = ("gradient", "linear", "painn")
LONG_SOURCES = ("heavy-atoms", "fragments")
LONG_ENVELOPES = (*ENVELOPES, "bell")
LONG_MERGES = ("concatenated", "added")


@dataclass(frozen=True)
class E2FormerConfig(ConfigTable):
    """One E2Former-V2 network.

    The defaults are those of our own small weights; :func:`omnicalc.models.e2former.from_published` fills in the
    settings of the release. Lengths are in Å.
    """

    family = "e2former"
    heads: tuple[str, ...]  # levels of theory, one energy head each
    elements: tuple[int, ...] | None = None  # atomic numbers with a row in the tables; None: tables by Z
    channels: int = 32
    l_max: int = 2
    layers: int = 2
    attention_heads: int = 8
    query_width: int = 4  # width of q and k per attention head
    value_multiplicity: int = 4  # attention output width = attention_heads * value_multiplicity
    cutoff: float = 4.5
    max_neighbors: int | None = None  # None: all within the cutoff, so the energy is smooth
    envelope: str = "poly7"
    basis: str = "bessel"  # or "gaussian"
    n_basis: int = 10
    radial: str = "shared"  # one small radial network, or "per-block" as released
    radial_width: int = 32
    embedding_layernorm: bool = True  # per-block radial only: LayerNorms in the initial embedding
    gate: str = "qk"
    weights: str = "softplus"
    values: tuple[str, ...] = ()  # one per layer; where none is given, "first-order" in all
    mirror_symmetric: bool = True  # drop the couplings (1,1,1) and (2,1,2) that mix parities
    type_embedding: bool = True  # add a learned vector per element to the initial scalars
    system_input: str = "head"  # what the vector added in every block is made from
    embedding_scale: float = 23.01  # divides the sum over neighbours of the initial embedding
    forces: str = "gradient"  # or a direct force head: "linear", "painn"
    long_layers: int = 0
    long_sources: str = "heavy-atoms"  # as released, or "fragments": heavy atoms with their hydrogens
    fragment_radius: float = 1.6  # within which a hydrogen is part of a heavy atom's fragment, by a smooth weight
    long_lower: float = 0.1
    long_upper: float = 12.0
    long_envelope: str = "poly7"  # or "bell"
    long_merge: str = "concatenated"  # as released, or "added": what comes from afar begins at zero
    long_max_neighbors: int | None = None
    image_limit: int | None = None  # parity with the release: most lattice shells it looks at
    cores: tuple[tuple[int, int, float], ...] = ()  # Z, Z', radius in Å below which the two atoms repel each other
    committee: int = 0  # members of the committee of last layers that the weights hold
    core_height: float = 100.0  # of that repulsion at zero distance, eV

    def __post_init__(self):
        check_heads(self.heads)
        self._check_whole(
            "channels", "layers", "attention_heads", "query_width", "value_multiplicity", "n_basis", "radial_width"
        )
        self._check_positive("cutoff", "embedding_scale", "long_upper", "fragment_radius", "core_height")
        self._check_choices(
            envelope=ENVELOPES, basis=("bessel", "gaussian"), radial=("shared", "per-block"), gate=GATES,
            weights=WEIGHTS, system_input=SYSTEM_INPUTS, forces=FORCE_HEADS, long_sources=LONG_SOURCES,
            long_merge=LONG_MERGES, long_envelope=LONG_ENVELOPES, l_max=(1, 2),
        )  # fmt: skip
        self._check_whole("committee", least=0)
        self._check_whole(*(key for key in ("max_neighbors", "long_max_neighbors") if getattr(self, key) is not None))
        self._check_multiple("channels", of="attention_heads")
        if self.long_layers < 0 or not 0 <= self.long_lower < self.long_upper:
            raise WeightsError(
                f"long_layers = {self.long_layers}, long_lower = {self.long_lower} and long_upper = {self.long_upper} "
                "given; 0 or more layers, and a length of 0 Å or more below long_upper are needed"
            )
        if not self.values:
            object.__setattr__(self, "values", VALUES[:1] * self.layers)
        for value in self.values:
            check_choice("values", value, VALUES)
        if len(self.values) != self.layers:
            entries = ", ".join([f'"{VALUES[0]}"'] * self.layers)
            raise WeightsError(
                f"values lists {len(self.values)} layers, but layers = {self.layers}; give one entry per layer, as in "
                f"values = [{entries}]"
            )
        if self.radial == "shared" and (self.elements is None or self.gate != "qk"):
            raise WeightsError("radial = 'shared' needs an element list and gate = 'qk'")
        for core in self.cores:
            self._check_core(core)
        if self.fragment_radius > self.neighbor_cutoff:
            raise WeightsError(f"fragment_radius = {self.fragment_radius} Å is beyond the cutoff")

    def _check_core(self, core: tuple) -> None:
        known = self.elements or ()
        if len(core) != 3 or core[0] not in known or core[1] not in known:
            raise WeightsError(f"cores: {list(core)} given; two of the elements {list(known)} and a radius are needed")
        if not 0 < core[2] < self.cutoff:
            raise WeightsError(f"cores: radius {core[2]} given; between 0 and the cutoff of {self.cutoff} Å is needed")

    @property
    def neighbor_cutoff(self) -> float:
        """Radius of the neighbour list that the network needs, Å."""
        return max(self.cutoff, self.long_upper) if self.long_layers else self.cutoff
