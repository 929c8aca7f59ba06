"""More files with every frame: extended XYZ and ASE trajectories with forces and velocities, and XTC. Whole frames
appended, cut back on resume.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import RunError
from omnicalc.md.ase_trajectory import AseTrajectory
from omnicalc.md.files import AppendFile
from omnicalc.md.saving import FILES, formats, words
from omnicalc.md.snapshot import blank, fill

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.md.box import Box
    from omnicalc.md.settings import Settings
    from omnicalc.md.state import State

_XTC_PRECISION = 1000.0  # steps per nm, as GROMACS has it: 0.01 Å


class Frames:
    """Appends a frame to each of the files that the settings ask for."""

    def __init__(self, folder: Path, atoms: Atoms, settings: Settings, sizes: Mapping[str, int], stack: ExitStack):
        """``sizes``: bytes to keep of each file, by key of FILES; none for a new run."""
        self.settings = settings
        self._frame = blank(atoms, settings.fix)
        self.words = words(settings.save)
        self._part = folder / f".{FILES['xtc']}.part"  # beside the run, whose disk is the one that is watched
        makers: dict[str, Callable[[State, Box | None], bytes]] = {"extxyz": self._extxyz, "xtc": self._xtc}
        self._files = {
            name: (stack.enter_context(AppendFile(folder / FILES[name], sizes.get(name, 0))), makers[name])
            for name in formats(settings.save)
            if name in makers
        }
        wants_traj = "traj" in formats(settings.save)
        self._traj = AseTrajectory(folder / FILES["traj"], sizes, stack, self._frame) if wants_traj else None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by key of FILES."""
        sizes = {name: file.size for name, (file, _) in self._files.items()}
        return sizes if self._traj is None else sizes | self._traj.sizes

    def append(self, state: State, box: Box | None) -> None:
        """Add a frame; ``box`` as for the DCD file. Raises :class:`omnicalc.errors.RunError` when it does not fit."""
        for file, make in self._files.values():
            file.append(make(state, box))
        if self._traj is not None:
            self._traj.append(self._atoms(state))

    def sync(self) -> None:
        """Wait until all frames are on the disk."""
        for file, _ in self._files.values():
            file.sync()
        if self._traj is not None:
            self._traj.sync()

    def _atoms(self, state: State) -> Atoms:
        return fill(self._frame, state, self.settings.timestep_fs, self.words)

    def _extxyz(self, state: State, box: Box | None) -> bytes:
        from ase.io import write

        text = io.StringIO()
        write(text, self._atoms(state), format="extxyz", write_results=True)
        return text.getvalue().encode()

    def _xtc(self, state: State, box: Box | None) -> bytes:
        """One frame as the library writes it, into a file; frames of an XTC file stand for themselves."""
        from MDAnalysis.lib.formats.libmdaxdr import XTCFile
        from MDAnalysis.lib.mdamath import triclinic_vectors

        positions = state.positions.cpu().numpy()
        vectors = np.zeros((3, 3), dtype=np.float32)
        if box is not None:
            positions, vectors = box.orient(positions), triclinic_vectors(box.dimensions)
        time_ps = 1e-3 * self.settings.timestep_fs * state.step
        try:
            with XTCFile(str(self._part), "w") as file:
                file.write((0.1 * positions).astype(np.float32), 0.1 * vectors, state.step, time_ps, _XTC_PRECISION)
            with XTCFile(str(self._part)) as file:
                file.read()  # fails for a torn frame, of which writing says nothing where the disk is full
            return self._part.read_bytes()
        except OSError as error:
            raise RunError(
                f"cannot write a frame of {self._part.with_name(FILES['xtc'])}: {error} (as when the disk is full); "
                "make room, then go on with --resume"
            ) from error
        finally:
            self._part.unlink(missing_ok=True)
