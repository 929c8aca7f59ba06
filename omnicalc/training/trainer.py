"""The training loop: draw a frame, step, average the weights, validate, save; resumable to the bit on one CPU."""

import csv
import io
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from omnicalc.errors import InputError, RunError
from omnicalc.files import made_folder, not_writable, write_atomically
from omnicalc.models import build_model
from omnicalc.signals import StopWish
from omnicalc.training.dataset import build_dataset
from omnicalc.training.recipe import Recipe, Stage
from omnicalc.training.step import Frame, Step, predict

STATE, RECIPE, LOG = "state.pt", "recipe.json", "log.csv"
LOG_FIELDS = ["step", "learning_rate", "train_force", "train_energy", "head", "force_mae", "energy_mae"]


@dataclass
class TrainState:
    """All that a resumed run needs: weights, averages, optimiser moments, clipping norm, random generator, step."""

    parameters: dict[str, Tensor]
    averaged: dict[str, Tensor]
    first: dict[str, Tensor]  # Adam's running mean of the gradient
    second: dict[str, Tensor]  # and of its square
    generator: torch.Generator
    norm: float = 0.0  # running mean of the gradient norm
    step: int = 0

    def save(self, path: Path) -> None:
        payload = {k: v for k, v in vars(self).items() if k != "generator"}
        payload["generator"] = self.generator.get_state()
        content = io.BytesIO()
        torch.save(payload, content)
        try:
            write_atomically(path, lambda temporary: temporary.write_bytes(content.getbuffer()))
        except OSError as error:
            raise RunError(
                f"cannot write {path}: {error.strerror}; the state saved before is still there. "
                "Make room, then go on with --resume"
            ) from None

    @classmethod
    def load(cls, path: Path) -> "TrainState":
        """Raises :class:`RunError` for a damaged file."""
        try:
            payload = torch.load(path, weights_only=True)
            generator = torch.Generator()
            generator.set_state(payload.pop("generator"))
            return cls(**payload, generator=generator)
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, UnpicklingError) as error:
            reason = " ".join(str(error).split())[:120]
            raise RunError(
                f"{path} is damaged and cannot be resumed from ({reason}); start again with another --out"
            ) from None


def check_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    """Raise :class:`InputError` when this run cannot be started or resumed in ``out``; needs no data and no model."""
    why = not_writable(out)
    if why is not None:
        raise InputError(f"{why}; give another folder with --out")
    if not resume:
        if out.exists() and any(out.iterdir()):
            raise InputError(f"'{out}' is not empty; continue it with --resume or choose another with --out")
        return
    lacking = [name for name in (STATE, RECIPE, LOG) if not (out / name).is_file()]
    if lacking:
        raise InputError(
            f"'{out}' holds no training run to resume (no {', no '.join(lacking)}); leave out --resume to start one"
        )
    if (out / RECIPE).read_text() != _as_json(recipe):
        raise InputError(f"the recipe differs from the one of '{out}' (see its {RECIPE}); use --out")


def _as_json(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), indent=1, sort_keys=True)


def _model(recipe: Recipe) -> torch.nn.Module:
    """The untrained model of a recipe. Raises InputError, or WeightsError, for settings it cannot be built from."""
    try:
        return build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)}).float()
    except (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError) as error:
        raise InputError(f"no model can be built from [model] of the recipe: {' '.join(str(error).split())}") from None


class Trainer:
    """Trains one recipe in one output folder (``state.pt``, ``log.csv``, ``recipe.json``)."""

    def __init__(self, recipe: Recipe, data: Path, out: Path, *, compiled: bool = False, report=print):
        self.recipe, self.out, self.report = recipe, out, report
        with torch.random.fork_rng():
            torch.manual_seed(recipe.optimiser.seed)
            self.model = _model(recipe)
        self.dataset = build_dataset(recipe, data, self.model.cutoff)
        self.step = Step(self.model, compiled)
        self.state = self._initial()

    def _initial(self) -> TrainState:
        parameters = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        generator = torch.Generator().manual_seed(self.recipe.optimiser.seed)
        zeros = {n: torch.zeros_like(p) for n, p in parameters.items()}
        return TrainState(
            parameters,
            averaged={n: p.clone() for n, p in parameters.items()},
            first=zeros,
            second={n: z.clone() for n, z in zeros.items()},
            generator=generator,
        )

    @property
    def state_file(self) -> Path:
        return self.out / STATE

    def prepare(self, resume: bool) -> None:
        """Make or reopen the output folder. Raises InputError rather than touch another run's files."""
        check_folder(self.recipe, self.out, resume)
        if resume:
            self.state = TrainState.load(self.state_file)
            self._truncate_log()
            return
        with made_folder(self.out):
            write_atomically(self.out / RECIPE, lambda temporary: temporary.write_text(_as_json(self.recipe)))
            with self._log("w") as file:
                csv.writer(file).writerow(LOG_FIELDS)

    def run(self, steps: int | None = None) -> int | None:
        """Train to the end of the schedule, for at most ``steps`` more steps, or until SIGINT or SIGTERM, which is
        returned; the state is then saved.
        """
        with StopWish() as wish:
            self._run(steps, wish)
        return wish.signal

    def _run(self, steps: int | None, wish: StopWish) -> None:
        optimiser, total, state = self.recipe.optimiser, self.recipe.steps, self.state
        last = total if steps is None else min(total, state.step + steps)
        begun, first = time.perf_counter(), state.step
        recent: list[tuple[float, float]] = []
        while state.step < last:
            recent.append(self._advance())
            if state.step % optimiser.validate_every == 0 or state.step == total:
                self._validate(recent)
                recent = []
            stopped = wish.signal is not None
            if state.step % optimiser.checkpoint_every == 0 or state.step == last or stopped:
                state.save(self.state_file)
                rate = (time.perf_counter() - begun) / (state.step - first)
                self.report(f"step {state.step}/{total}  {1e3 * rate:.0f} ms/step")
            if stopped:
                return

    def _advance(self) -> tuple[float, float]:
        """One frame, one Adam step; returns force loss (eV/Å) and energy loss (eV/atom)."""
        state = self.state
        stage, step = self.recipe.stage_at(state.step)
        frame = self._draw(stage)
        weight = torch.tensor(energy_weight(stage, step))
        force, energy, gradients = self.step(state.parameters, frame, weight)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        if not math.isfinite(norm):
            raise RunError(
                f"the gradient became non-finite at step {state.step}, so training has to stop; "
                "start again with a lower learning_rate in the recipe and another --out"
            )
        state.norm = norm if state.step == 0 else 0.98 * state.norm + 0.02 * min(norm, 5 * state.norm)
        scale = min(1.0, self.recipe.optimiser.clip * state.norm / (norm + 1e-12))
        self._adam({n: g * scale for n, g in gradients.items()}, learning_rate(stage, step))
        state.step += 1
        return float(force), float(energy)

    def _draw(self, stage: Stage) -> Frame:
        generator = self.state.generator
        mixture = torch.tensor(stage.mixture or self.dataset.weights)
        source = int(torch.multinomial(mixture, 1, generator=generator))
        frames = self.dataset.train[source]
        return frames[int(torch.randint(len(frames), (1,), generator=generator))]

    def _adam(self, gradients: dict[str, Tensor], rate: float) -> None:
        """Adam (Kingma and Ba, arXiv:1412.6980) and the exponential average of the weights, in place."""
        state, optimiser = self.state, self.recipe.optimiser
        b1, b2 = optimiser.betas
        t = state.step + 1
        names = list(gradients)
        p, m, v, g, e = (
            [d[n] for n in names] for d in (state.parameters, state.first, state.second, gradients, state.averaged)
        )
        torch._foreach_lerp_(m, g, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, g, g, 1 - b2)
        denominator = torch._foreach_sqrt(torch._foreach_div(v, 1 - b2**t))
        torch._foreach_add_(denominator, 1e-8)
        torch._foreach_addcdiv_(p, m, denominator, -rate / (1 - b1**t))
        # the average starts short, so that it does not remember the random start
        torch._foreach_lerp_(e, p, 1 - min(optimiser.ema, t / (t + 10)))

    def _validate(self, recent: list[tuple[float, float]]) -> None:
        """Errors of the averaged weights on every source's validation frames, one log line each."""
        for source, frames in zip(self.recipe.data, self.dataset.valid, strict=True):
            errors = mean_errors(self.model, self.state.averaged, frames)
            mean = [sum(x) / max(1, len(recent)) for x in zip(*recent, strict=True)] or [math.nan] * 2
            rate = learning_rate(*self.recipe.stage_at(self.state.step))
            row = [self.state.step, rate, *mean, source.head, *errors]
            with self._log("a") as file:
                csv.writer(file).writerow(row)
            self.report(
                f"step {self.state.step}  {source.head}: force MAE {1e3 * errors[0]:.1f} meV/Å, "
                f"energy MAE {1e3 * errors[1]:.3f} meV/atom  (training loss {1e3 * mean[0]:.1f} meV/Å)"
            )

    def _log(self, mode: str):
        return (self.out / LOG).open(mode, newline="")

    def _truncate_log(self) -> None:
        """Drop log lines written after the last saved state."""
        with self._log("r") as file:
            rows = list(csv.reader(file))
        kept = [LOG_FIELDS] + [r for r in rows[1:] if int(r[0]) <= self.state.step]
        text = "".join(",".join(r) + os.linesep for r in kept)
        write_atomically(self.out / LOG, lambda temporary: temporary.write_text(text))


def learning_rate(stage: Stage, step: int) -> float:
    """Rate at ``step`` of a stage: linear warm-up, then a half cosine down to ``final_rate``."""
    warm = min(1.0, (step + 1) / stage.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * step / (stage.decay_steps or stage.steps)))
    return stage.learning_rate * warm * (stage.final_rate + (1 - stage.final_rate) * cosine)


def energy_weight(stage: Stage, step: int) -> float:
    late = step >= (1 - stage.late_fraction) * stage.steps
    return stage.energy_weight_late if late else stage.energy_weight


def mean_errors(model: torch.nn.Module, parameters: dict[str, Tensor], frames: list[Frame]) -> tuple[float, float]:
    """Mean absolute error over all force components (eV/Å) and of the energy per atom (eV)."""
    force, components, energy = 0.0, 0.0, 0.0
    for frame in frames:
        predicted, forces = predict(model, parameters, frame, create_graph=False)
        n_atoms = float(frame.weight.sum())
        force += float(((forces - frame.forces).abs().sum(-1) * frame.weight).sum())
        components += 3 * n_atoms
        energy += abs(float(predicted.detach() - frame.energy)) / n_atoms
    return force / components, energy / len(frames)
