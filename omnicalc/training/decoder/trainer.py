"""The training loop of a decoder: draw a batch, step, average the weights, validate, save; resumable to the bit."""

import csv
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnicalc.data.trajectories import Trajectory
from omnicalc.decoding.evaluation import horizons_up_to
from omnicalc.decoding.targets import Batch, fixed_batch, window
from omnicalc.errors import InputError, RunError
from omnicalc.files import made_folder, write_atomically
from omnicalc.models.atom.physical import PhysicalAtom, PhysicalConfig, first_guess
from omnicalc.signals import StopWish
from omnicalc.training.decoder.batches import Sampler
from omnicalc.training.decoder.recipe import DecoderRecipe, as_table, learning_rate
from omnicalc.training.muon import Muon
from omnicalc.training.run_log import LOG
from omnicalc.training.state import RECIPE, STATE, check_files, load_state, refusing_damage, save_state

_STARTS = 12  # per validation molecule
_SAY_EVERY = 60.0  # s between lines of progress
# Mean squared error of the rigid guess, Å^2, as a + b t: weights errors so that all times count alike.
_USUAL = (0.006, 0.0004)


class DecoderTrainer:
    """Trains one recipe in one folder (``state.pt``, ``log.csv``, ``recipe.json``)."""

    def __init__(
        self, recipe: DecoderRecipe, train: list[Trajectory], valid: list[Trajectory], out: Path, report=print
    ):
        self.recipe, self.out, self.report = recipe, out, report
        config = PhysicalConfig.from_dict({**recipe.model, "horizon": recipe.longest})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = PhysicalAtom(config)
        self.sampler = Sampler(train, recipe)
        self.data = _digest(train)
        self.horizons = horizons_up_to(recipe.longest)  # fs, of the validation
        self.validation = [_spread(t, self.horizons, self._part(t.name)) for t in valid]
        self.averaged = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.optimiser = make_optimiser(recipe, self.model)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.step, self.seconds = 0, 0.0
        self.recent: list[float] = []  # losses since the last validation

    def _part(self, molecule: str) -> tuple[float, float]:
        """Of a molecule's frames, those to validate on: of one that is trained on, the later ones."""
        return (self.recipe.train_part if molecule in self.recipe.molecules else 0.0, 1.0)

    def prepare(self, resume: bool) -> None:
        """Make or reopen the output folder. Raises InputError rather than touch another run's files."""
        check_folder(self.recipe, self.out, resume)
        if resume:
            self._load()
            return
        with made_folder(self.out):
            text = _as_json(self.recipe)
            write_atomically(self.out / RECIPE, lambda temporary: temporary.write_text(text))
            self._write_log("w", ["step", "learning_rate", "loss", *(f"mse_{h:g}fs" for h in self.horizons)])

    def run(self, steps: int | None = None) -> int | None:
        """Train to the end, for at most ``steps`` more steps, or until SIGINT or SIGTERM, which is returned."""
        last = self.recipe.steps if steps is None else min(self.recipe.steps, self.step + steps)
        said = time.perf_counter()
        with StopWish() as wish:
            while self.step < last and wish.signal is None:
                begun = time.perf_counter()
                self.recent.append(self._advance())
                if self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps:
                    self._validate()
                self.seconds += time.perf_counter() - begun
                if time.perf_counter() - said > _SAY_EVERY:
                    said = time.perf_counter()
                    self.report(f"step {self.step}/{self.recipe.steps}  {1e3 * self.seconds / self.step:.0f} ms/step")
                if self.step % self.recipe.save_every == 0 or self.step == last:
                    self.save()
            if self.step < last:
                self.save()
        return wish.signal

    def _advance(self) -> float:
        """One step; the loss, 1 being about the rigid guess."""
        batch = self.sampler.draw(self.generator)
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = weighted_error(self.model, batch, self.recipe.objective)
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        if not torch.isfinite(norm):
            raise RunError(
                f"the gradient became non-finite at step {self.step}, so training has to stop; start again with a "
                "lower learning_rate in the recipe and another --out"
            )
        self.optimiser.step()
        self.step += 1
        # the average starts short, so that it does not remember the random start
        share = 1 - min(self.recipe.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.averaged[name].lerp_(parameter, share)
        return float(loss.detach())

    def table(self) -> dict:
        """The recipe as plain values."""
        return as_table(self.recipe)

    def averaged_model(self) -> PhysicalAtom:
        model = PhysicalAtom(self.model.config)
        model.load_state_dict(self.averaged, strict=True)
        return model.eval().requires_grad_(False)

    def _validate(self) -> None:
        """Mean squared errors of the averaged weights on the validation molecules, beside those of the guess."""
        model, found, guess = self.averaged_model(), 0.0, 0.0
        for batch in self.validation:
            found = found + _errors(model(batch.start, batch.times), batch)
            guess = guess + _errors(first_guess(batch.start, batch.times, model.config.guess).frames, batch)
        found, guess = (e / len(self.validation) for e in (found, guess))
        loss, rate = sum(self.recent) / len(self.recent), learning_rate(self.recipe, self.step - 1)
        self.recent = []
        self._write_log("a", [self.step, rate, loss, *found.tolist()])
        columns = zip(self.horizons, found, guess, strict=True)
        errors = "  ".join(f"{h:g} fs {e:.4f} ({g:.4f})" for h, e, g in columns)
        self.report(f"step {self.step}/{self.recipe.steps}  loss {loss:.3f}  Å^2, of the guess in brackets: {errors}")

    def save(self) -> None:
        """All that a resumed run needs, wholly or not at all."""
        payload = {
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            "recent": self.recent,
            "data": self.data,
        }
        save_state(self.out / STATE, payload)

    def _load(self) -> None:
        path = self.out / STATE
        payload = load_state(path)
        if payload.get("data", self.data) != self.data:  # runs saved by earlier versions do not know theirs
            raise InputError(
                f"the trajectories differ from those that the run in '{self.out}' began with; put the old files back, "
                "or start again with another --out"
            )
        with refusing_damage(path):
            self.model.load_state_dict(payload["model"])
            self.optimiser.load_state_dict(payload["optimiser"])
            self.averaged, self.step = payload["averaged"], payload["step"]
            self.seconds, self.recent = payload["seconds"], payload["recent"]
            self.generator.set_state(payload["generator"])
        with (self.out / LOG).open(newline="") as file:
            rows = list(csv.reader(file))
        kept = rows[:1] + [r for r in rows[1:] if int(r[0]) <= self.step]
        text = "".join(",".join(r) + "\n" for r in kept)
        write_atomically(self.out / LOG, lambda temporary: temporary.write_text(text))

    def _write_log(self, mode: str, row: list) -> None:
        with (self.out / LOG).open(mode, newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


def make_optimiser(recipe: DecoderRecipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    if recipe.optimiser == "muon":
        return Muon(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def weighted_error(model: PhysicalAtom, batch: Batch, objective: str) -> Tensor:
    """S2T, or S2S on the last frame, of what the guess leaves over; each time by the usual size of its error."""
    start, times = batch.start, batch.times
    with torch.no_grad():
        guess = first_guess(start, times, model.config.guess)
        # errors in the frame of the guess: the same as those in space, and small numbers
        wanted = (batch.wanted - guess.frames) @ guess.turn
    squares = (model.left_over(start, guess, times) - wanted).square().mean(-1)
    weights = start.mask[:, None] / (_USUAL[0] + _USUAL[1] * times)[..., None]
    if objective == "s2s":
        squares, weights = squares[:, -1:], weights[:, -1:]
    return (squares * weights).sum() / (start.mask.sum() * squares.shape[1])


def check_folder(recipe: DecoderRecipe, out: Path, resume: bool) -> None:
    """Raise :class:`InputError` when this run cannot be started or resumed in ``out``."""
    check_files(out, resume)
    if resume and (out / RECIPE).read_text() != _as_json(recipe):
        raise InputError(f"the recipe differs from the one of '{out}' (see its {RECIPE}); use another --out")


def _digest(trajectories: Sequence[Trajectory]) -> str:
    """Of what is trained on."""
    digest = hashlib.sha256()
    for t in trajectories:
        digest.update(repr((t.name, t.spacing_fs, t.segments, t.x.shape)).encode())
        for array in (t.numbers, t.x, t.v):
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _as_json(recipe: DecoderRecipe) -> str:
    return json.dumps(as_table(recipe), indent=1, sort_keys=True)


def _spread(trajectory: Trajectory, horizons: Sequence[float], part: tuple[float, float]) -> Batch:
    """Evenly spread starts in ``part`` of a trajectory with targets at the horizons of the validation."""
    starts = trajectory.starts(window(trajectory, horizons[-1]), part)
    if not len(starts):
        raise InputError(
            f"{trajectory.name} has no window of {horizons[-1]:g} fs to validate on in the part {part[0]:g} to "
            f"{part[1]:g} of its frames; make longer trajectories, or give a smaller longest in the recipe"
        )
    chosen = starts[np.linspace(0, len(starts) - 1, _STARTS).astype(int)]
    return fixed_batch(trajectory, chosen, horizons)


def _errors(found: Tensor, batch: Batch) -> Tensor:
    """(T,) mean squared error per coordinate, Å^2."""
    return (found - batch.wanted).square().mean((0, 2, 3))
