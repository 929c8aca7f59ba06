"""The folder of a relaxation: results in the order of the input, and what is needed to go on."""

from __future__ import annotations

from pathlib import Path

from omnicalc.md.folder import RunFolder


class RelaxFolder(RunFolder):
    """Paths of its files; locking, and refusing what is there, as for a run of molecular dynamics."""

    NAMES = ("run.json", "structures.xyz", "summary.csv", "restart.npz")
    OTHERS = ()
    PARTS = {"settings": dict, "structure": dict, "model": dict}

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.record, self.results, self.summary, self.restart = (self.path / name for name in self.NAMES)
