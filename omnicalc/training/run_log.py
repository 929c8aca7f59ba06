"""``log.csv`` of a training run, and the learning curve drawn from it."""

import csv
import io
from pathlib import Path

from omnicalc.files import write_atomically
from omnicalc.training.errors_shown import CURVES, SHOWN
from omnicalc.training.validation import GroupErrors

LOG, CURVE = "log.csv", "learning_curve.png"
_TEXT = ("source", "head", "group")
_LATER = ("stress_mae",)  # errors that logs of earlier versions do not have


class RunLog:
    """One line per validated group; what stands after the last saved state is dropped on resuming."""

    def __init__(self, folder: Path, terms: tuple[str, ...], errors: tuple[str, ...]):
        self.path = folder / LOG
        trained = [f"train_{term}" for term in terms]
        self.fields = ["step", "learning_rate", "loss", *trained, "source", "head", "group", "structures", *errors]
        self._later = [name for name in errors if name in _LATER]

    def begin(self) -> None:
        with self.path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(self.fields)

    def truncate(self, step: int) -> None:
        """Drop lines after ``step``. Raises ValueError for a file that is no log of this training."""
        with self.path.open(newline="") as file:
            header, *rows = [*csv.reader(file)] or [[]]
        if header == [name for name in self.fields if name not in self._later]:
            rows = [[*r, *[""] * len(self._later)] if len(r) == len(header) else r for r in rows]
            header = self.fields
        if header != self.fields:
            raise ValueError("its first line is not that of this training")
        if rows and len(rows[-1]) < len(header):  # cut off while being written, after the last saved state
            rows.pop()
        kept = [r for r in rows if self._step(r) <= step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *kept])  # names may have commas
        write_atomically(self.path, lambda temporary: temporary.write_text(text.getvalue()))

    def _step(self, row: list[str]) -> int:
        """Raises ValueError for a line of something else."""
        for name, value in zip(self.fields, row, strict=True):
            if name not in _TEXT and value:
                float(value)
        return int(row[0])

    def last_errors(self) -> list[GroupErrors]:
        """Those of the last validation."""
        rows = self.read()
        names = self.fields[self.fields.index("structures") + 1 :]
        return [
            GroupErrors(
                r["source"], r["head"], r["group"], int(r["structures"]), {n: float(r[n]) for n in names if r[n]}
            )
            for r in rows
            if r["step"] == rows[-1]["step"]
        ]

    def add(self, rows: list[dict]) -> None:
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            writer.writerows(rows)

    def read(self) -> list[dict]:
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))


def draw_curve(log: RunLog, path: Path) -> None:
    """Validation errors of every source against the step, and the training loss; as PNG."""
    from matplotlib.figure import Figure

    rows = [r for r in log.read() if r["group"] == "all"]
    if not rows:
        return
    panels = [name for name in CURVES if any(r.get(name) not in (None, "", "nan") for r in rows)]
    figure = Figure(figsize=(4.2 * (len(panels) + 1), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels) + 1, squeeze=False)[0]
    for axis, key in zip(axes, panels, strict=False):
        shown = SHOWN[key]
        for name in dict.fromkeys(f"{r['source']} ({r['head']})" for r in rows):
            mine = [r for r in rows if f"{r['source']} ({r['head']})" == name]
            axis.plot([int(r["step"]) for r in mine], [shown.factor * float(r[key]) for r in mine], ".-", label=name)
        axis.set(xlabel="step", ylabel=f"validation {shown.title} ({shown.unit})", yscale="log")
        axis.legend(fontsize=7, frameon=False)
    by_step = {int(r["step"]): float(r["loss"]) for r in rows}
    axes[-1].plot(list(by_step), list(by_step.values()), ".-", color="black")
    axes[-1].set(xlabel="step", ylabel="training loss", yscale="log")
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
