"""``log.csv`` of a training run, and the learning curve drawn from it."""

import csv
from pathlib import Path

from omnicalc.files import write_atomically

LOG, CURVE = "log.csv", "learning_curve.png"


class RunLog:
    """One line per validated group; what stands after the last saved state is dropped on resuming."""

    def __init__(self, folder: Path, terms: tuple[str, ...], errors: tuple[str, ...]):
        self.path = folder / LOG
        trained = [f"train_{term}" for term in terms]
        self.fields = ["step", "learning_rate", "loss", *trained, "source", "head", "group", "structures", *errors]

    def begin(self) -> None:
        with self.path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(self.fields)

    def truncate(self, step: int) -> None:
        """Drop lines after ``step``."""
        with self.path.open(newline="") as file:
            rows = list(csv.reader(file))
        kept = [rows[0], *(r for r in rows[1:] if int(r[0]) <= step)]
        text = "".join(",".join(r) + "\n" for r in kept)
        write_atomically(self.path, lambda temporary: temporary.write_text(text))

    def add(self, rows: list[dict]) -> None:
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            writer.writerows(rows)

    def read(self) -> list[dict]:
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))


def draw_curve(log: RunLog, path: Path) -> None:
    """Validation errors of every source against the step, and the training loss; as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [r for r in log.read() if r["group"] == "all"]
    if not rows:
        return
    panels = [("force_mae", "force MAE (meV/Å)", 1e3), ("energy_mae", "energy MAE (meV/atom)", 1e3)]
    panels = [p for p in panels if any(r.get(p[0]) not in (None, "", "nan") for r in rows)]
    figure = Figure(figsize=(4.2 * (len(panels) + 1), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels) + 1, squeeze=False)[0]
    for axis, (key, label, scale) in zip(axes, panels, strict=False):
        for name in dict.fromkeys(f"{r['source']} ({r['head']})" for r in rows):
            mine = [r for r in rows if f"{r['source']} ({r['head']})" == name]
            axis.plot([int(r["step"]) for r in mine], [scale * float(r[key]) for r in mine], ".-", label=name)
        axis.set(xlabel="step", ylabel=f"validation {label}", yscale="log")
        axis.legend(fontsize=7, frameon=False)
    by_step = {int(r["step"]): float(r["loss"]) for r in rows}
    axes[-1].plot(list(by_step), list(by_step.values()), ".-", color="black")
    axes[-1].set(xlabel="step", ylabel="training loss", yscale="log")
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
    FigureCanvasAgg(figure)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
