"""SCD: one backbone with heads for scalars, noise (or direct forces) and a pooled embedding."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.models.graph import Graph, ModelOutput
from omnicalc.models.scd.config import SCDConfig
from omnicalc.models.scd.edges import Edges, edges_of
from omnicalc.models.scd.geometric import GeometricTransformer
from omnicalc.models.scd.heads import Denoising, EmbeddingHead, GatedHead, NoiseNormalizer, pool
from omnicalc.models.scd.transformer import Transformer
from omnicalc.systems import Systems


class References(nn.Module):
    """Reference values per element, (rows, 1)."""

    def __init__(self, rows: int):
        super().__init__()
        self.register_buffer("initial_atomref", torch.zeros(rows, 1))
        self.atomref = nn.Embedding(rows, 1)
        nn.init.zeros_(self.atomref.weight)
        self.atomref.weight.requires_grad_(False)


class SCD(Denoising):
    """The network of one :class:`SCDConfig`. Maps a :class:`Graph` to per-atom energies.

        y = pool(e_i std + ref[z_i]) + mean

    As a potential it runs without a condition, that is with the learned mask token; for properties it can run a second
    time on the embedding of the first, as in pretraining (``self_conditioned``).
    """

    of_labels = ("mean", "std")  # of the labels it is trained on: not taken over from weights that it begins with

    def __init__(self, config: SCDConfig):
        super().__init__()
        self.config = config
        c = config.channels
        self.rep_model = GeometricTransformer(config) if config.backbone == "cgt" else Transformer(config)
        self.noise_head = GatedHead(c, config.softening)
        self.embedding_head = EmbeddingHead(c, config.embedding_pool)
        self.scalar_heads = nn.ModuleDict({name: GatedHead(c, config.softening) for name in config.heads})
        self.noise_normalizer = NoiseNormalizer()
        self.register_buffer("mean", torch.tensor(float(config.mean)))
        self.register_buffer("std", torch.tensor(float(config.std)))
        if config.reference_rows is not None:
            self.prior_model = nn.ModuleList([References(config.reference_rows)])

    @property
    def cutoff(self) -> float:
        return self.config.cutoff

    @property
    def conservative(self) -> bool:
        """Whether forces are the exact gradient of the energy: not with direct forces or detached modulation."""
        return self.config.forces == "gradient" and not (self.config.detach_modulation and self._modulated)

    @property
    def _modulated(self) -> bool:
        return self.config.backbone != "et"

    def check(self, systems: Systems) -> None:
        """Raise :class:`InputError` when this network has no energy for any structure, or none for these."""
        self.check_gives_energies()
        self._check_elements(systems.numbers)

    def check_gives_energies(self) -> None:
        """Raise :class:`InputError` when this network has no energy for any structure."""
        if self.config.gives == "properties":
            raise InputError(
                f"these weights give properties ({', '.join(self.config.heads)}), no energies, so there is nothing to "
                "derive forces from; use omnicalc.properties, or choose a potential (omnicalc models)"
            )
        if self.config.gives == "embeddings":
            raise InputError(
                "these weights are pretrained only: their scalar head was never trained, so an energy would be random. "
                "They give embeddings and denoising (omnicalc.embed, omnicalc.denoise); for energies, fine-tune them "
                "with omnicalc train and start = in the recipe, or choose other weights (omnicalc models)"
            )
        if self.config.backbone == "cgt":
            raise InputError(
                "the energy of a CGT backbone jumps where a torsion passes zero, so it gives no energies or forces; "
                "use its embeddings (omnicalc.embed), or a CT backbone"
            )

    def _check_elements(self, numbers: Tensor) -> None:
        largest = int(numbers.max()) if len(numbers) else 0
        if largest >= self.config.known_rows:
            raise InputError(f"atomic number {largest} given; this network knows those below {self.config.known_rows}")

    def edges(self, graph: Graph) -> Edges:
        """The network's own edges. Raises :class:`InputError` for elements without a row in its tables."""
        config = self.config
        self._check_elements(graph.numbers)
        return edges_of(
            graph,
            cutoff=config.cutoff,
            max_neighbors=config.max_neighbors,
            refuse_more_pairs=config.refuse_more_pairs,
            normalise_images=config.normalise_self_images,
        )

    def features(self, edges: Edges, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scalars (N, D) and vectors (N, 3, D) under a condition (G, D), or none."""
        return self.rep_model(edges, condition)

    def features_to_read(self, edges: Edges, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What scalar heads read, as :meth:`features`. Where the network is ``self_conditioned`` and no condition is
        given, it is the pooled embedding of a pass without one.
        """
        x, v = self.features(edges, condition)
        if condition is not None or not self.config.self_conditioned:
            return x, v
        return self.features(edges, self.embedding_head(x, edges.system, edges.n_systems))

    def node_features(self, graph: Graph, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`features`; what self-conditioned denoising asks of any backbone."""
        return self.features(self.edges(graph), condition)

    def frozen_in_pretraining(self) -> list[nn.Parameter]:
        """What pretraining leaves as it is, as released: element embedding, mask token, scalar heads."""
        return [*self.rep_model.frozen_in_pretraining(), *self.scalar_heads.parameters()]

    def atom_outputs(self, x: Tensor, v: Tensor, head: Tensor) -> Tensor:
        """e_i (N,) of the head (N,) of each atom's structure."""
        every = torch.cat([mlp(x, v)[0] for mlp in self.scalar_heads.values()], -1)
        return every.gather(1, head.unsqueeze(1)).squeeze(1)

    def shares(self, x: Tensor, outputs: Tensor, edges: Edges, atom_mask: Tensor | None = None) -> Tensor:
        """What each atom adds to its structure's value y, (N,); ``atom_mask`` (N,) multiplies the outputs first."""
        config, system, n = self.config, edges.system, edges.n_systems
        outputs = outputs if atom_mask is None else outputs * atom_mask
        scaled = outputs * self.std
        if config.reference_rows is not None:
            scaled = scaled + self.prior_model[0].atomref(edges.numbers).squeeze(-1)
        count = torch.bincount(system, minlength=n).to(x.dtype)
        constant = self.mean.expand(n)
        if config.embedding_adds_to_energy:
            pooled = self.embedding_head(x.detach(), system, n)
            constant = constant + pooled.mean(-1) * self.std + self.mean
        if config.energy_pool in ("min", "max"):
            constant, scaled = constant + pool(scaled, system, n, config.energy_pool), torch.zeros_like(scaled)
        elif config.energy_pool != "sum":
            scaled = scaled / (count + (config.energy_pool == "mean-plus-one"))[system]
        return scaled + (constant / count)[system]

    def values(self, graph: Graph, condition: Tensor | None = None, atom_mask: Tensor | None = None) -> Tensor:
        """y (G,) of every structure, by the head that it asks for: a property, or an energy without references."""
        edges = self.edges(graph)
        x, v = self.features_to_read(edges, condition)
        shares = self.shares(x, self.atom_outputs(x, v, graph.head[graph.system]), edges, atom_mask)
        return shares.new_zeros(len(graph.head)).index_add(0, graph.system, shares)

    def forward(self, graph: Graph) -> ModelOutput:
        if self.conservative or self.config.forces == "direct":
            return ModelOutput(*self._energies(graph))
        return self._with_detached_forces(graph)

    def _energies(self, graph: Graph) -> tuple[Tensor, Tensor | None]:
        """Per-atom energies (N,), and direct forces (N, 3) where the vector head was trained on them."""
        edges = self.edges(graph)
        x, v = self.features_to_read(edges)
        energies = self.shares(x, self.atom_outputs(x, v, graph.head[graph.system]), edges)
        return energies, self.noise_head(x, v)[1] if self.config.forces == "direct" else None

    def _with_detached_forces(self, graph: Graph) -> ModelOutput:
        """Forces as released: a gradient that does not see the modulation."""
        from omnicalc.gradients import forces_from_edges

        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            vectors = graph.vectors if graph.vectors.requires_grad else graph.vectors.detach().requires_grad_(True)
            graph = replace(graph, vectors=vectors, distances=vectors.square().sum(-1).sqrt())
            energies, _ = self._energies(graph)
            gradient = torch.autograd.grad(
                energies.sum(), vectors, create_graph=keep, retain_graph=True, allow_unused=True
            )[0]
        gradient = torch.zeros_like(vectors) if gradient is None else gradient
        return ModelOutput(energies, forces_from_edges(gradient, graph.index))
