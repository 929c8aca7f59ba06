"""Architecture settings of the SCD networks; defaults are those of our own smooth, rotation-equivariant potential."""

from dataclasses import dataclass

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import ConfigTable, check_heads

BACKBONES = ("ct", "et", "cgt")
BASES = ("expnorm", "gauss")
POOLS = ("sum", "mean", "mean-plus-one", "min", "max")
VECTOR_PRENORMS = ("none", "component", "equivariant")
DISTANCE_INFLUENCES = ("both", "keys", "values", "none")
FORCES = ("gradient", "direct")
GIVES = ("energies", "properties", "embeddings")


@dataclass(frozen=True)
class SCDConfig(ConfigTable):
    """One SCD network (arXiv:2603.17196). Distances are in Å.

    The release differs from the defaults in its neighbour cap, its component-wise vector pre-norm (which breaks
    rotational symmetry), its detached modulation (whose forces are no exact gradient) and its pooling;
    :func:`omnicalc.models.scd.from_published` fills in those.
    """

    family = "scd"
    heads: tuple[str, ...] = ("energy",)  # scalar heads: levels of theory, or properties
    backbone: str = "ct"  # conditional transformer; "et": without condition; "cgt": with angles and torsions
    channels: int = 64
    layers: int = 3
    attention_heads: int = 8
    n_basis: int = 32
    basis: str = "expnorm"
    trainable_basis: bool = False
    cutoff: float = 5.0
    cutoff_power: int = 2  # of the cosine cutoff; 1 as released, 2 makes forces smooth where neighbours come and go
    rows: int = 118  # of the element tables, indexed by atomic number
    max_neighbors: int | None = None  # None: all within the cutoff
    refuse_more_pairs: bool = False  # as the release's molecular builder: an error instead of truncation
    normalise_self_images: bool = True  # unit directions to an atom's own periodic images; released: false
    neighbor_embedding: bool = True
    distance_influence: str = "both"  # where the distance enters the attention: keys, values
    vector_cutoff: bool = True  # the cutoff multiplies the values, so that vectors vanish there too
    vector_prenorm: str = "equivariant"  # "component": as released, not rotation equivariant
    softening: float = 0.0  # of the lengths that heads read; 0, as released, lets forces jump at symmetric geometries
    scalar_post_norm: bool = True
    vector_post_norm: bool = False  # whitening after every layer
    final_whitening: bool = False
    clamp: float | None = None  # of scalars and vectors between layers; released: 1000
    detach_modulation: bool = False  # as released in training: forces then lack a term and are not conservative
    condition_dropout: float = 0.2
    drop_path: float = 0.1
    embedding_pool: str = "mean"
    energy_pool: str = "sum"
    embedding_adds_to_energy: bool = False
    self_conditioned: bool = False  # properties are read under the structure's own embedding: a second pass
    reference_rows: int | None = None  # rows of a learned table of reference values per element
    mean: float = 0.0  # of the values, added to each structure's; what the network begins with
    std: float = 1.0  # of the values, multiplies what the scalar head gives
    forces: str = "gradient"  # "direct": the vector head's
    gives: str = "energies"  # what the scalar heads were trained for; "embeddings": for nothing, pretrained only
    layer_whitening: bool = True  # cgt only: whitening after every layer
    angle_width: int = 64  # cgt only, and below
    distance_basis_width: int = 8
    angle_basis_width: int = 8
    torsion_basis_width: int = 8
    residuals_before: int = 1
    residuals_after: int = 2

    def __post_init__(self):
        self._check_whole("channels", "layers", "attention_heads", "n_basis", "cutoff_power", "rows")
        self._check_whole("angle_width", "distance_basis_width", "angle_basis_width", "torsion_basis_width")
        self._check_whole("residuals_before", "residuals_after", least=0)
        self._check_choices(
            backbone=BACKBONES, basis=BASES, distance_influence=DISTANCE_INFLUENCES, vector_prenorm=VECTOR_PRENORMS,
            embedding_pool=POOLS, energy_pool=POOLS, forces=FORCES, gives=GIVES,
        )  # fmt: skip
        self._check_probabilities("condition_dropout", "drop_path")
        self._check_positive("std", "cutoff")
        if self.channels % self.attention_heads or self.channels % 2:
            raise WeightsError(
                f"channels = {self.channels} must be even and a multiple of attention_heads = {self.attention_heads}"
            )
        if self.basis == "gauss" and self.n_basis < 2:
            raise WeightsError("n_basis = 1 given with basis = 'gauss'; 2 or more are needed")
        if self.self_conditioned and (self.gives == "energies" or self.backbone == "et"):
            raise WeightsError(
                "self_conditioned is for properties by a backbone with a condition (ct, cgt): by the embedding of the "
                "whole structure, an energy would depend on molecules however far away. Leave it out"
            )
        self._check_whole(*(key for key in ("max_neighbors", "reference_rows") if getattr(self, key) is not None))
        if self.clamp is not None:
            self._check_positive("clamp")
        if not self.softening >= 0:
            raise WeightsError(f"softening = {self.softening!r} given; 0 or more is needed")
        check_heads(self.heads)

    @property
    def known_rows(self) -> int:
        """Rows that all tables per element have."""
        return self.rows if self.reference_rows is None else min(self.rows, self.reference_rows)
