"""OMNIMOL: a point-edge transformer on molecules, with energies and forces per atom (direct), or energies alone and
their gradient (invariant, conservative). Attention is all-to-all: no cutoff, no periodicity, not size-consistent.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError, WeightsError
from omnicalc.models.cube_rotations import rotation_set
from omnicalc.models.graph import Graph, ModelOutput
from omnicalc.models.omnimol.body import MoleculeBody
from omnicalc.models.omnimol.config import OmnimolConfig
from omnicalc.models.omnimol.forces import without_net_force, without_torque
from omnicalc.models.omnimol.memory import check_memory
from omnicalc.models.omnimol.molecule import Padding
from omnicalc.models.omnimol.pairs import distances_of, in_chunks
from omnicalc.models.omnimol.repulsion import Repulsion
from omnicalc.models.omnimol.transformer import EntryHead
from omnicalc.systems import Systems


class Omnimol(nn.Module):
    """The network of one :class:`OmnimolConfig`. Maps a :class:`Graph` with positions to per-atom energies (and
    direct forces).
    """

    uses_positions = True
    head_rows = {  # tensors with rows for each head, in the heads' order, and how many
        "energy_head.out.weight": 1,
        "energy_head.out.bias": 1,
        "force_head.out.weight": 3,
        "force_head.out.bias": 3,
    }

    def __init__(self, config: OmnimolConfig):
        super().__init__()
        self.config = config
        self.body = MoleculeBody(config)
        shape = config.width, config.head_layers, config.attention_heads
        n_heads = len(config.heads)
        self.energy_head = EntryHead(*shape, n_heads, config.mlp_ratio, **config.drops)
        if config.forces == "direct":
            self.force_head = EntryHead(*shape, 3 * n_heads, config.mlp_ratio, **config.drops)
        if config.repulsion != "none":
            self.repulsion = Repulsion(config.repulsion, config.repulsion_reach, config.core_height)

    @property
    def cutoff(self) -> float:
        """Of the neighbour list that is asked for, Å: this model finds its pairs itself."""
        return 1.0

    @property
    def conservative(self) -> bool:
        return self.config.forces == "gradient"

    def set_options(self, **options) -> None:
        """Change what is done to direct predictions: remove_net_force, remove_torque, rotations.

        ``rotations`` is also for gradient forces of weights that see positions, whose energy depends on orientation.

        Raises:
            InputError: options that these weights do not have, or a value that is not allowed.
        """
        turns = self.config.positions
        wrong = options.keys() - ({"rotations"} if turns else set()) if self.conservative else ()
        if wrong:
            raise InputError(
                f"{', '.join(sorted(wrong))}: options of direct forces; these weights are conservative"
                + (", and take rotations alone" if turns else ", and their energy does not depend on the orientation")
            )
        try:
            self.config = replace(self.config, **options)
        except WeightsError as error:
            raise InputError(str(error)) from None

    def check(self, systems: Systems) -> None:
        """Refuse what this model cannot compute.

        Raises:
            InputError: periodic structures; molecules too large for the memory.
        """
        if bool(systems.pbc.any()):
            raise InputError(
                "OMNIMOL lets every atom look at every other one, which has no meaning among endless periodic images; "
                "take the periodicity off (--no-pbc, or atoms.pbc = False) if an isolated molecule is meant, or use a "
                "model with a cutoff (omnicalc models)"
            )
        width = int(systems.counts.max())
        dtype, device = self.body.token.dtype, self.body.token.device
        check_memory(self.config, systems.n_systems, width, dtype, device)

    def forward(self, graph: Graph) -> ModelOutput:
        config = self.config
        if bool(graph.pbc.any()):
            raise InputError("OMNIMOL cannot compute periodic structures; take the periodicity off")
        padding = Padding.of(graph.system, len(graph.charge))
        energies, forces = self._averaged(graph, padding)
        size = padding.mask.sum(1).to(energies.dtype)[graph.system]
        energies = config.energy_scale * energies + config.energy_shift / size
        if config.repulsion != "none":
            pushes, push_forces = self._repel(graph, padding)
            energies = energies + pushes
        if self.conservative:
            return ModelOutput(energies)
        forces = config.force_scale * forces
        if config.repulsion != "none":
            forces = forces + push_forces
        n_systems = len(graph.charge)
        if config.remove_net_force:
            forces = without_net_force(forces, graph.system, n_systems)
        if config.remove_torque:
            forces = without_torque(forces, graph.positions, graph.system, n_systems)
        return ModelOutput(energies, forces)

    def _averaged(self, graph: Graph, padding: Padding) -> tuple[Tensor, Tensor | None]:
        """Raw energies (N,) and direct forces (N, 3), averaged over rotations where that is asked for."""
        config = self.config
        if config.rotations == 1 or not config.positions or self.training:
            return self._raw(graph, padding)
        energies, forces = [], []
        for turn in rotation_set(config.rotations, graph.positions.dtype, graph.positions.device):
            energy, force = self._raw(replace(graph, positions=graph.positions @ turn.T), padding)
            energies.append(energy)
            forces.append(None if force is None else force @ turn)
        mean = None if forces[0] is None else torch.stack(forces).mean(0)
        return torch.stack(energies).mean(0), mean

    def _raw(self, graph: Graph, padding: Padding) -> tuple[Tensor, Tensor | None]:
        """Outputs of the heads in units of the scales: energies (N,), direct forces (N, 3) or None."""
        features, mask = self.body(graph.positions, graph.numbers, graph.charge, graph.spin, padding, graph.system)
        width, head = padding.mask.shape[1], graph.head[graph.system].unsqueeze(1)
        energies = padding.flat(self.energy_head(features, mask, width)).gather(1, head).squeeze(1)
        if self.conservative:
            return energies, None
        forces = padding.flat(self.force_head(features, mask, width)).unflatten(1, (-1, 3))
        return energies, forces.gather(1, head.unsqueeze(2).expand(-1, 1, 3)).squeeze(1)

    def _repel(self, graph: Graph, padding: Padding) -> tuple[Tensor, Tensor | None]:
        """Short-range repulsion per atom (N,), eV, and for the direct variant its forces (N, 3), eV/Å."""
        if self.conservative:
            return self._repulsion_energies(graph.positions, graph.numbers, padding), None
        keep, positions = graph.positions.requires_grad and torch.is_grad_enabled(), graph.positions
        with torch.enable_grad():
            positions = positions if keep else positions.detach().requires_grad_()
            energies = self._repulsion_energies(positions, graph.numbers, padding)
            slope = torch.autograd.grad(energies.sum(), positions, create_graph=keep)[0]
        return energies if keep else energies.detach(), -slope

    def _repulsion_energies(self, positions: Tensor, numbers: Tensor, padding: Padding) -> Tensor:
        where, z, mask = padding.pad(positions), padding.pad(numbers), padding.mask
        others = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)

        def rows(part: slice) -> Tensor:
            keep = mask[:, part, None] & mask[:, None] & others[part]
            r = distances_of(where[:, part, None] - where[:, None], keep)
            return 0.5 * self.repulsion(r, keep, z[:, part, None], z[:, None]).sum(-1)

        n_systems, width = mask.shape
        return padding.flat(in_chunks(rows, width, self.config.pair_chunk // (n_systems * width), dim=1))
