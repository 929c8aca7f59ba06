"""The training loop: plan packs, step, average the weights, validate, save; resumable to the bit on a CPU."""

import hashlib
import math
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from ase.data import atomic_numbers
from torch import Tensor

from omnicalc.card import Card
from omnicalc.errors import InputError, RunError
from omnicalc.files import made_folder, write_atomically
from omnicalc.models import build_model
from omnicalc.signals import StopWish
from omnicalc.training.adam import Adam, decays, norm_of
from omnicalc.training.dataset import build_dataset
from omnicalc.training.errors_shown import in_words, reported_names
from omnicalc.training.example import Batch, Totals, collate
from omnicalc.training.lora import add_low_rank, merged_state, unfreeze
from omnicalc.training.objectives import StepInfo, build_objective
from omnicalc.training.packing import Pack, PackingReport, Size, share
from omnicalc.training.processes import Processes
from omnicalc.training.recipe import Recipe, Stage
from omnicalc.training.recorded_gradients import recorded_gradients
from omnicalc.training.run_log import CURVE, RunLog, draw_curve
from omnicalc.training.sampler import Sampler, seed_of
from omnicalc.training.schedule import energy_weight, learning_rate
from omnicalc.training.start import copy_matching, elements_of, read_start
from omnicalc.training.state import (
    RECIPE,
    STATE,
    as_json,
    check_folder,
    load_state,
    refusing_damage,
    save_state,
    writing,
)
from omnicalc.training.validation import ALL, GroupErrors, averaged_weights, validate

BEST = "best"
_DRAW_EVERY = 20.0  # s
_HEAD = r"(.*_heads?\..*|.*\bhead\b.*)"  # names of parameters that belong to one head or to all
_NOT_A_HEAD = rf"(?!{_HEAD}$)(?!.*(embedding|target|source)).*weight"


class Trainer:
    """Trains one recipe in one output folder: ``state.pt``, ``log.csv``, ``recipe.json``, ``learning_curve.png``, and
    ``best``, the weights folder of the best validation so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Path,
        out: Path,
        *,
        device: torch.device | str = "cpu",
        report: Callable[[str], object] = print,
        progress: Callable | None = None,
        record: bool | None = None,
        command: str = "",
    ):
        """``report`` takes lines of text; ``progress`` (what, done, total) is called often. ``record``: whether the
        gradients of a step are recorded as one CUDA graph; None: where that can be. ``command``: what makes these
        weights, for their card.
        """
        self.recipe, self.out, self.command = recipe, out, command
        self.processes = Processes(device)
        self.device = self.processes.device
        self.report = report if self.processes.first else (lambda line: None)
        self.progress = progress if progress is not None and self.processes.first else (lambda *_: None)
        self.objective = build_objective(recipe.objective)
        self.model, self.start_card, self.start_report = _model(recipe)
        self.objective.check(self.model)
        _check_precision(recipe, self.model)
        _check_stress(recipe, self.model)
        if hasattr(self.objective, "begin"):
            self.objective.begin(self.model)
        self.recorded = recorded_gradients(self, record)
        self.model.to(self.device)
        self.dataset = build_dataset(
            recipe, data, self.model.cutoff, report=self.report,
            progress=lambda done, total: self.progress("frames", done, total),
            kept={} if self.start_card is None else {h.name: h.reference_by_number for h in self.start_card.heads},
        )  # fmt: skip
        self._check_examples()
        sizes = [[e.size for e in source.train] for source in self.dataset.sources]
        self.sampler = Sampler(sizes, recipe.batch, recipe.optimiser.seed)
        self._check_shares()
        self.adam = Adam.of(self.model, getattr(self.objective, "decays", decays), recipe.optimiser.matrices)
        self.step, self.skipped, self.skipped_in_a_row = 0, 0, 0
        self.best: float | None = None
        self.recent: list[dict[str, float]] = []  # losses of the steps since the last validation
        self.last_errors: list[GroupErrors] = []
        self.packing = PackingReport()
        self._drawn = -math.inf
        self.busy = self.stepping = 0.0  # s: in gradients, and in whole steps
        self.log = RunLog(out, self.objective.terms, reported_names(self.objective.error_names))

    @property
    def averaged(self) -> dict[str, Tensor]:
        """All tensors of the model, those that are trained as their running averages."""
        if self.recipe.trains != "lora":
            return {**self.model.state_dict(), **self.adam.averaged}
        with averaged_weights(self.model, self.adam.averaged):
            return merged_state(self.model)

    @property
    def state_file(self) -> Path:
        return self.out / STATE

    def prepare(self, resume: bool) -> None:
        """Make or reopen the output folder. Raises InputError rather than touch another run's files."""
        if self.processes.first:
            check_folder(self.recipe, self.out, resume)
        if resume:
            self._restore(load_state(self.state_file))
            if self.processes.first:
                with refusing_damage(self.log.path):
                    self.log.truncate(self.step)
                    self.last_errors = self.log.last_errors()
        elif self.processes.first:
            with made_folder(self.out):
                write_atomically(self.out / RECIPE, lambda temporary: temporary.write_text(as_json(self.recipe)))
                self.log.begin()
        self.processes.wait()

    def run(self, steps: int | None = None) -> int | None:
        """Train to the end of the schedule, for at most ``steps`` more steps, or until SIGINT or SIGTERM, which is
        returned; the state is then saved.
        """
        with StopWish() as wish, _tf32(self.recipe.optimiser.tf32):
            return self._run(steps, wish)

    def _run(self, steps: int | None, wish: StopWish) -> int | None:
        optimiser, total = self.recipe.optimiser, self.recipe.steps
        last = total if steps is None else min(total, self.step + steps)
        if self.step == 0 and self.recipe.start:
            self._validate([])  # what the start does, before it learns
        begun, first = time.perf_counter(), self.step
        while self.step < last:
            before = time.perf_counter()
            self.recent.append(self._advance(wish))
            self.stepping += time.perf_counter() - before
            stopped = self.recent[-1]["stop"]
            self.progress("steps", self.step, total)
            if self.step % optimiser.validate_every == 0 or self.step == total:
                self._validate(self.recent)
                self.recent = []
            if self.step % optimiser.checkpoint_every == 0 or self.step == last or stopped:
                self._save()
                rate = (time.perf_counter() - begun) / (self.step - first)
                loss = f"  loss {_mean(self.recent, 'loss'):.4f}" if self.recent else ""
                self.report(f"step {self.step}/{total}  {1e3 * rate:.0f} ms/step{loss}")
            if stopped:
                return wish.signal or signal.SIGTERM  # another process had it
        return wish.signal

    def efficiency(self) -> float:
        """Part of the steps' time that the processes, on average, spent on gradients; the rest is waiting for one
        another and what each does for itself. All processes have to call this.
        """
        share = torch.tensor(self.busy / max(self.stepping, 1e-9), device=self.device)
        return float(self.processes.add([share])[0]) / self.processes.count

    def _advance(self, wish: StopWish) -> dict[str, float]:
        """One step; its loss and terms."""
        stage, step = self.recipe.stage_at(self.step)
        packs = self.sampler.next(self.recipe.batch.packs, self.mixture(stage))
        self.packing.count(packs, self.recipe.batch)
        totals = self.totals_of(packs)
        info = StepInfo(stage, energy_weight(stage, step), totals, None, self.step)
        counted = [total.clone() for total in self._totals]
        begun = time.perf_counter()
        gradients, values = self._gradients(packs, info)
        self.busy += time.perf_counter() - begun
        stop = torch.tensor([float(wish.signal is not None)], dtype=torch.float32, device=self.device)
        *gradients, values, stop = self.processes.add([*gradients, values, stop])
        self._add_counts(counted)
        values, stop = values.tolist(), bool(stop.item())
        norm = None if self.recorded is None else self.recorded.norm
        norm = norm_of(gradients) if norm is None else norm
        if math.isfinite(norm) and math.isfinite(values[0]):
            scale = self.adam.clipped(norm, self.recipe.optimiser)
            rate = learning_rate(stage, step)
            torch._foreach_mul_(gradients, scale)
            self.adam.update(self.model, gradients, rate, self.recipe.optimiser)
            self.skipped_in_a_row = 0
        else:
            self._skip(packs)
        self.step += 1
        return {"stop": stop, **dict(zip(("loss", *self.objective.terms), values, strict=True))}

    @property
    def _totals(self) -> list[Tensor]:
        """Running totals of noise that a network which denoises keeps, in place."""
        return list(self.model.noise_normalizer.buffers()) if hasattr(self.model, "noise_normalizer") else []

    def _add_counts(self, before: list[Tensor]) -> None:
        """Give the running totals what all processes counted in this step, so that they stay the same in all."""
        if self.processes.count == 1 or not before:
            return
        more = self.processes.add([now - old for now, old in zip(self._totals, before, strict=True)])
        for now, old, grown in zip(self._totals, before, more, strict=True):
            now.copy_(old + grown)

    def _gradients(self, packs: list[Pack], info: StepInfo) -> tuple[list[Tensor], Tensor]:
        """Gradients of this process's share of the step's loss, and (loss, terms...) of it."""
        found = None if self.recorded is None else self.recorded(packs[0], info)
        return self.plain_gradients(self._share(packs), info) if found is None else found

    def _share(self, packs: list[Pack]) -> dict[int, Pack]:
        return share(packs, self._size, self.processes.rank, self.processes.count)

    def plain_gradients(self, packs: dict[int, Pack], info: StepInfo) -> tuple[list[Tensor], Tensor]:
        """Those of packs by their numbers in the step, one kernel launched after another."""
        parameters = self.trained
        gradients = [torch.zeros_like(p) for p in parameters]
        values = torch.zeros(1 + len(self.objective.terms), device=self.device)
        self.model.train()
        for k, pack in packs.items():
            batch = self.batch_of(pack).to(self.device)
            seed = seed_of(self.recipe.optimiser.seed, "noise", self.step, k)
            step = replace(info, generator=torch.Generator().manual_seed(seed))
            with self._precision(), _seeded(seed):
                loss, terms = self.objective.loss(self.model, batch, step)
            if loss.requires_grad:
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
                for total, g in zip(gradients, found, strict=True):
                    if g is not None:
                        total += g
            values += self.values_of(loss, terms)
        return gradients, values

    def values_of(self, loss: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """(loss, terms...), in float32."""
        found = [terms[t].detach().float() if t in terms else loss.new_zeros(()).float() for t in self.objective.terms]
        return torch.stack([loss.detach().float(), *found])

    @property
    def trained(self) -> list[Tensor]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def mixture(self, stage: Stage) -> tuple[float, ...]:
        """Probability of each data source."""
        return stage.mixture or self.dataset.weights

    def typical_packs(self, stage: Stage, count: int) -> list[Pack]:
        """Packs of this training, without drawing from its sampler."""
        mine = self.sampler
        return Sampler(mine.sizes, mine.budget, mine.seed).next(count, self.mixture(stage))

    def totals_of(self, packs: list[Pack]) -> Totals:
        return Totals.of([self._entry(m) for p in packs for m in p.members])

    def batch_of(self, pack: Pack) -> Batch:
        """On the CPU."""
        return collate([self._example(m) for m in pack.members], self.dataset.cutoff)

    def _precision(self):
        if not self.recipe.optimiser.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _skip(self, packs: list[Pack]) -> None:
        """Leave the weights as they are after a step that is not finite; too many in a row end the run."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row <= self.recipe.optimiser.skip_at_most:
            return
        source, k = packs[0].members[0]
        where = self.dataset.sources[source].where(self.dataset.sources[source].train[k])
        raise RunError(
            f"loss or gradient became non-finite at step {self.step}, the last of {self.skipped_in_a_row} such steps "
            f"in a row (its first structure: {where}), so training has to stop; look at those labels, or start "
            "again with a lower learning_rate in the recipe and another --out"
        )

    def _check_shares(self) -> None:
        """Refuse steps that leave some of the processes without work."""
        packs, count = self.recipe.batch.packs, self.processes.count
        if packs % count == 0:
            return
        typical = self.typical_packs(self.recipe.stages[0], 64)
        there = packs * sum(len(p.members) for p in typical) / len(typical)
        if there < count:
            raise InputError(
                f"steps of {there:.1f} structures cannot be shared out among {count} processes; start fewer, or set "
                f"packs (now {packs}) in [batch] of a recipe to a multiple of their number"
            )

    def _check_examples(self) -> None:
        """Let the objective look at one structure of every source before anything is written."""
        if not hasattr(self.objective, "check_example"):
            return
        for k, source in enumerate(self.dataset.sources):
            self.objective.check_example(self.dataset.example(k, source.train[0]), source.where(source.train[0]))

    def _entry(self, member: tuple[int, int]):
        return self.dataset.sources[member[0]].train[member[1]]

    def _size(self, member: tuple[int, int]) -> Size:
        return self._entry(member).size

    def _example(self, member: tuple[int, int]):
        return self.dataset.example(member[0], self._entry(member))

    def _validate(self, recent: list[dict]) -> None:
        """Errors of the averaged weights, one log line per group; a weights folder when they are the best yet."""
        last = self.step == self.recipe.steps
        ends = last or self.step == 0  # on all frames, so that what came of a start can be read off the two
        limit = None if ends else self.recipe.optimiser.validate_frames
        with averaged_weights(self.model, self.adam.averaged), self._precision():
            found = validate(
                self.model, self.objective, self.dataset, self.recipe.batch, self.processes, self.device, limit
            )
        self.last_errors = found
        if not self.processes.first:
            return
        with writing(self.out, self.state_file):
            self._record(found, recent, ends)

    def _record(self, found: list[GroupErrors], recent: list[dict], ends: bool) -> None:
        """Log, report and curve of a validation, and the weights if they are the best yet."""
        last = self.step == self.recipe.steps
        means = {f"train_{t}": _mean(recent, t) for t in self.objective.terms}
        rate = learning_rate(*self.recipe.stage_at(max(0, self.step - 1)))
        common = {"step": self.step, "learning_rate": rate, "loss": _mean(recent, "loss"), **means}
        self.log.add(
            [
                {
                    **common,
                    "source": g.source,
                    "head": g.head,
                    "group": g.group,
                    "structures": g.structures,
                    **g.errors,
                }
                for g in found
            ]
        )
        for g in found:
            if g.group == ALL:
                self.report(f"step {self.step}  {g.source} ({g.head}): {in_words(g.errors)}")
        if last or time.monotonic() - self._drawn > _DRAW_EVERY:
            draw_curve(self.log, self.out / CURVE)
            self._drawn = time.monotonic()
        if not (ends and self._limited) or last and self.best is None:  # the best on the same frames
            self._keep_best(found)

    @property
    def _limited(self) -> bool:
        """Whether validations on the way take fewer frames than there are."""
        most = self.recipe.optimiser.validate_frames
        return most is not None and any(len(source.valid) > most for source in self.dataset.sources)

    def _keep_best(self, found: list[GroupErrors]) -> None:
        weights = self.dataset.weights
        scores = [self.objective.score(g.errors) for g in found if g.group == ALL]
        score = sum(w * s for w, s in zip(weights, scores, strict=True))
        if math.isfinite(score) and (self.best is None or score < self.best):
            from omnicalc.training.export import export

            self.best = score
            export(self, self.out / BEST)

    def _save(self) -> None:
        if self.processes.first:
            save_state(
                self.state_file,
                {
                    "parameters": self.model.state_dict(),
                    "adam": self.adam.state(),
                    "sampler": self.sampler.state,
                    "step": self.step,
                    "skipped": self.skipped,
                    "skipped_in_a_row": self.skipped_in_a_row,
                    "best": self.best,
                    "recent": self.recent,
                    "data": self._data_digest(),
                    "files": self._files,
                    "references": self.dataset.references,
                },
            )

    def _restore(self, state: dict) -> None:
        try:
            # runs saved by earlier versions know neither their files nor their references
            if state["data"] != self._data_digest() or state.get("files", self._files) != self._files:
                raise InputError(
                    f"the data differ from those that the run in '{self.out}' began with; put the old files back, or "
                    "start again with another --out"
                )
            self.model.load_state_dict(state["parameters"])
            self.adam.restore(state["adam"])
            self.sampler.restore(state["sampler"])
            self.dataset.replace_references(state.get("references", self.dataset.references))
            self.recent = state.get("recent", [])
            for key in ("step", "skipped", "skipped_in_a_row", "best"):
                setattr(self, key, state[key])
        except (KeyError, TypeError, RuntimeError) as error:
            raise RunError(
                f"{self.state_file} does not fit this recipe's model ({' '.join(str(error).split())[:120]}); "
                "start again with another --out"
            ) from None

    @property
    def _files(self) -> list[str]:
        """What is in the files of every source, labels and all."""
        return [source.digest for source in self.dataset.sources]

    def _data_digest(self) -> str:
        """Of the geometries in their splits."""
        digest = hashlib.sha256()
        for source in self.dataset.sources:
            for entry in (*source.train, *source.valid):
                digest.update(entry.digest)
        return digest.hexdigest()


def _model(recipe: Recipe) -> tuple[torch.nn.Module, Card | None, str]:
    """The model to begin with, the card of the weights that it starts from, and what was copied from them.

    Raises InputError, or WeightsError, for settings it cannot be built from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.optimiser.seed)
        try:
            model = build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)}).float()
        except (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"no model can be built from [model] of the recipe: {reason}") from None
        card, report = None, ""
        if recipe.start:
            card, tensors = read_start(recipe.start, recipe.family)
            heads = tuple(h.name for h in card.heads)
            match = copy_matching(model, recipe.heads, tensors, heads, recipe.copy_heads, elements_of(card))
            report = f"from {card.full_name}: {match}"
        elif recipe.copy_heads:
            raise InputError("copy_heads names heads of weights to begin with; say which, by start or --from")
        _check_kept(recipe, card, model)
        _freeze(model, recipe)
    return model, card, report


def _check_kept(recipe: Recipe, card: Card | None, model: torch.nn.Module) -> None:
    """Refuse heads to keep that the start does not have, or of elements without a row in the model."""
    heads = {} if card is None else {head.name: head for head in card.heads}
    rows = getattr(model, "elements", None)
    for name in recipe.kept_heads:
        if name not in heads:
            raise InputError(f"kept_heads: '{name}' is no head of the start; leave it out")
        missing = [symbol for symbol in heads[name].elements if rows is not None and atomic_numbers[symbol] not in rows]
        if missing:
            raise InputError(
                f"kept_heads: '{name}' knows {', '.join(missing)}, which elements in [model] lacks; add them there, or "
                "leave this head out"
            )


def _check_precision(recipe: Recipe, model: torch.nn.Module) -> None:
    if recipe.optimiser.bf16 and not all(getattr(module, "mixed_precision", True) for module in model.modules()):
        raise InputError(
            "[optimiser] bf16 = true: E2Former-V2 computes in float32 whatever the recipe says; leave it out (tf32 = "
            "true makes the matrix products of a GPU faster)"
        )


def _check_stress(recipe: Recipe, model: torch.nn.Module) -> None:
    if any(stage.stress_weight > 0 for stage in recipe.stages) and not model.conservative:
        raise InputError(
            "stress_weight is above 0 in [[stages]], but the forces of this model are no gradient of its energy, so it "
            "has no stress; leave that key out"
        )


def _freeze(model: torch.nn.Module, recipe: Recipe) -> None:
    """Leave trainable what the recipe says: all, the heads, or heads and low-rank updates of other matrices."""
    if recipe.trains == "all":
        return
    if recipe.trains == "lora":
        add_low_rank(model, [_NOT_A_HEAD], rank=recipe.lora_rank)
    else:
        model.requires_grad_(False)
    if not unfreeze(model, [_HEAD]):
        raise InputError(f"trains = '{recipe.trains}': no parameter of this family is named after a head; use 'all'")


def _mean(recent: list[dict], key: str) -> float:
    values = [r[key] for r in recent if math.isfinite(r[key])]
    return sum(values) / len(values) if values else math.nan


@contextmanager
def _seeded(seed: int):
    """Draws inside the network (dropped paths and conditions) from a seed; the process's generator stays as found."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _tf32(on: bool):
    """TF32 in matrix products of this run alone; off by default."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    try:
        matmul.allow_tf32 = on
        yield
    finally:
        matmul.allow_tf32 = before
