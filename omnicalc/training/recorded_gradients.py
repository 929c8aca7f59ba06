"""The gradients of a training step recorded as one CUDA graph, which is replayed on padded batches of one shape.

A step of a small network is thousands of short kernels (energies, forces, the way back through both), and a GPU waits
for Python to launch them. Recorded once they are one launch, and the next batch is made meanwhile. Plain launches
remain for batches that do not fit, and for everything when recording fails or gives other gradients.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.kernels.recorded import Captured
from omnicalc.training.adam import norm_of
from omnicalc.training.example import Totals
from omnicalc.training.losses import force_count
from omnicalc.training.objectives import StepInfo
from omnicalc.training.packing import Pack
from omnicalc.training.padded_batch import Shape, as_batch, padded
from omnicalc.training.recipe import Stage

if TYPE_CHECKING:
    from omnicalc.training.trainer import Trainer

_RECORD = partial(Captured, warm=3)
_LOOKED_AT = 256  # packs that the shape of the padding is chosen by
_CHECKED = 2  # batches on which recorded gradients are compared with plain ones: the recorded one, and another
_CLOSE = 1e-4  # relative; an earlier form of this differed by 8e-8 on an H200
_ONES = Totals(structures=1, atoms=1, energies=1, force_structures=1, force_atoms=1, stresses=1)


def recorded_gradients(trainer: "Trainer", wanted: bool | None) -> "RecordedGradients | None":
    """For ``Trainer.recorded``. ``wanted``: None where it can be done. Raises InputError where it cannot and should."""
    if wanted is False:
        return None
    reason = why_not(trainer)
    if reason is None:
        return RecordedGradients(trainer)
    if wanted:
        raise InputError(f"the gradients of these steps cannot be recorded: {reason}; leave out --record")
    return None


def why_not(trainer: "Trainer") -> str | None:
    """What stands against recording the steps of this training; None if nothing does."""
    if trainer.device.type != "cuda":
        return f"a CUDA graph needs an NVIDIA GPU, and the device is {trainer.device.type}"
    return why_not_on_any_device(trainer)


def why_not_on_any_device(trainer: "Trainer") -> str | None:
    from omnicalc.models.e2former import E2Former
    from omnicalc.training.objectives.energy_forces import EnergyForces

    recipe, model = trainer.recipe, trainer.model
    if trainer.processes.count > 1 or recipe.batch.packs > 1:
        return "a step has to be one pack of one process"
    if not isinstance(model, E2Former):
        return f"the batches of family '{recipe.family}' have no fixed shape (those of 'e2former' have)"
    if model.config.long_layers or model.config.max_neighbors is not None:
        return "with long-range layers or max_neighbors, the number of edges has to be known on the way"
    if type(trainer.objective) is not EnergyForces or trainer.objective.settings.rotate:
        return "only the objective 'energy-forces' without rotate draws no random numbers"
    if any(stage.stress_weight for stage in recipe.stages):
        return "the learning of stress is not recorded"
    return None


class RecordedGradients:
    """What :meth:`Trainer.plain_gradients` gives of a step's one pack, by a replay.

    ``norm`` is then that of the gradients. Every stage is recorded anew, in the shape of its packs.
    """

    def __init__(self, trainer: "Trainer", capture: Callable = _RECORD):
        self.trainer, self._capture = trainer, capture
        self.replayed = self.plain = 0  # steps
        self._begin(None)

    def _begin(self, stage: Stage | None) -> None:
        self._stage, self._checked = stage, 0
        self._captured = self._tensors = self._batch = self._square = None
        self._ready: tuple[Pack, dict[str, Tensor] | None] | None = None  # the next pack, and what was made of it
        if stage is not None:
            self.shape = Shape.around(self.trainer.typical_packs(stage, _LOOKED_AT))

    def __call__(self, pack: Pack, info: StepInfo) -> tuple[list[Tensor], Tensor] | None:
        """Gradients by all trained parameters and (loss, terms...), valid until the next call; None for a step that
        has to be launched plainly.
        """
        if info.stage is not self._stage:
            self._begin(info.stage)
        self._square = None
        tensors = self._taken(pack, info.totals)
        if tensors is None:
            self.plain += 1
            return None
        self._put(tensors, info.energy_weight)
        if self._captured is None and not self._record(info.stage):
            return None
        self._captured()
        self._look_ahead()
        gradients, values, square = self._captured.found
        if self._checked < _CHECKED and not self._agree(pack, info, gradients, values):
            return None
        self._square = square
        self.replayed += 1
        return list(gradients), values

    @property
    def norm(self) -> float | None:
        """Of the gradients of the last step; None if it was not replayed."""
        return None if self._square is None else math.sqrt(self._square.item())

    def __str__(self) -> str:
        return f"gradients of {self.replayed} steps were replayed, {self.plain} did not fit the padding"

    def _padded(self, pack: Pack, totals: Totals) -> dict[str, Tensor] | None:
        """A pack as tensors in pinned memory, from which copies to a GPU do not wait."""
        settings = self.trainer.objective.settings
        count = force_count(settings.loss, totals, settings.per_structure)
        tensors = padded(self.trainer.batch_of(pack), totals, count, self.shape)
        if tensors is None or self.trainer.device.type != "cuda":
            return tensors
        return {name: t.pin_memory() for name, t in tensors.items()}

    def _taken(self, pack: Pack, totals: Totals) -> dict[str, Tensor] | None:
        ready, self._ready = self._ready, None
        return ready[1] if ready is not None and ready[0] is pack else self._padded(pack, totals)

    def _look_ahead(self) -> None:
        """Make the next batch, while the GPU is busy. The sampler's state stays that before it."""
        trainer = self.trainer
        stage, _ = trainer.recipe.stage_at(trainer.step + 1)
        if stage is not self._stage or trainer.step + 1 >= trainer.recipe.steps:
            return
        (pack,) = trainer.sampler.peek(1, trainer.mixture(stage))
        self._ready = pack, self._padded(pack, trainer.totals_of([pack]))

    def _put(self, tensors: dict[str, Tensor], energy_weight: float) -> None:
        """Write a batch to where the recorded step reads it."""
        device = self.trainer.device
        if self._tensors is None:
            self._tensors = {name: t.to(device, copy=True) for name, t in tensors.items()}
            self._batch = as_batch(self._tensors, self.trainer.dataset.cutoff)
            self._energy_weight = torch.zeros((), dtype=torch.float64, device=device)
        for name, t in tensors.items():
            self._tensors[name].copy_(t, non_blocking=True)
        self._energy_weight.fill_(energy_weight)

    def _record(self, stage: Stage) -> bool:
        self.trainer.model.train()
        try:
            self._captured = self._capture(lambda: self._compute(stage), self.trainer.device)
        except Exception as error:  # whatever it is: plain launches go without it
            self._give_up(f"recording failed, {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return self._captured is not None

    def _compute(self, stage: Stage) -> tuple[list[Tensor], Tensor, Tensor]:
        """Gradients, (loss, terms...) and the gradients' square, of what lies in the tensors."""
        trainer = self.trainer
        info = StepInfo(stage, self._energy_weight, _ONES, None)
        parameters = trainer.trained
        loss, terms = trainer.objective.loss(trainer.model, self._batch, info)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        # copies: two parameters may be given one and the same tensor, and the step scales them in place
        gradients = [torch.zeros_like(p) if g is None else g.clone() for p, g in zip(parameters, found, strict=True)]
        square = torch.stack([g.double().square().sum() for g in gradients]).sum()
        return gradients, trainer.values_of(loss, terms), square

    def _agree(self, pack: Pack, info: StepInfo, gradients: list[Tensor], values: Tensor) -> bool:
        """Whether plain launches give the same; if not, they go on alone."""
        plain, expected = self.trainer.plain_gradients({0: pack}, info)
        if not math.isfinite(norm_of(plain)):
            return True  # such a step is skipped, and says nothing
        miss = max(_miss(gradients, plain), _miss([values], [expected]))
        if not miss <= _CLOSE:
            self._give_up(f"recorded gradients or losses differ by {miss:.1e}")
            return False
        if self._checked == 0:
            shape = self.shape
            self.trainer.report(
                f"gradients recorded as one CUDA graph, for up to {shape.structures - 1} structures, {shape.atoms} "
                f"atoms and {shape.slots} neighbours; they differ from plain launches by {miss:.1e}"
            )
        self._checked += 1
        return True

    def _give_up(self, why: str) -> None:
        self.trainer.report(f"gradients by plain launches from here on: {why}")
        self.trainer.recorded = self._captured = None


def _miss(mine: list[Tensor], other: list[Tensor]) -> float:
    """Relative difference; NaN where mine are not finite."""
    size, whole = norm_of([a - b for a, b in zip(mine, other, strict=True)]), norm_of(other)
    return size / whole if whole else (math.inf if size else 0.0)
