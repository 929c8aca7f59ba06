"""The engine: takes a structure and bound forces through a run whose folder is right at every instant.

A moment of the run reaches the disk in this order: frame (traj.dcd), line (log.csv), and from time to time,
after these two are synced, the restart file. So a restart file never speaks of frames that are not there, and
a run killed anywhere goes on from its last restart file: trajectory and log are cut back to that moment and
written again, byte for byte the same on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from omnicalc.errors import InputError, RunError
from omnicalc.md import record, restart
from omnicalc.md.box import standard_box
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.engines import dynamics_of
from omnicalc.md.files import shortage
from omnicalc.md.folder import RunFolder
from omnicalc.md.forces import follow
from omnicalc.md.guard_settings import guard_rules
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.job import Job
from omnicalc.md.loop import Loop, Result, draw_plots, lacks_plots
from omnicalc.md.mass_record import as_record
from omnicalc.md.progress import Silent
from omnicalc.md.restart import Restart
from omnicalc.md.saving import FILES
from omnicalc.md.settings import Settings
from omnicalc.md.trajectory import file_size, whole_frames
from omnicalc.signals import StopWish


def run(
    job: Job,
    settings: Settings,
    folder: RunFolder,
    *,
    resume: bool = False,
    progress: Silent | None = None,
    say: Callable[[str], None] = lambda text: None,
    announce: Callable[[], None] = lambda: None,
    wish: StopWish | None = None,
    up_to: int | None = None,
) -> Result:
    """Run molecular dynamics in ``folder``, or go on with the run there; ``say`` gets lines for the user.

    ``announce`` is called once, when everything is found to fit, before anything is written. ``wish``: what is asked
    whether to stop; None: signals to this process. ``up_to``: go on from no later step than this.

    Raises :class:`InputError` before anything is written when settings, folder and resumed run do not fit,
    and :class:`RunError` when the run has to stop, its last good state saved.
    """
    progress = progress or Silent()
    if resume and folder.read_record() is not None:
        with folder.locked():  # before the record is compared: that of a run that just starts is told as such
            return _go_on(job, settings, folder, folder.read_record(), progress, say, announce, wish, up_to)
    dynamics = dynamics_of(job, settings)
    new = _described(dynamics)
    folder.check_free()
    guards = _guards(job, settings, folder, say)
    state = initial_state(job.atoms, dynamics, settings, guards, job.device)
    announce()
    if resume:
        say(f"nothing to resume in {folder.path} yet: starting from the beginning")
    _mention_turned_cell(job, say)
    with folder.locked():
        folder.check_free()  # again, now that no other process can start here
        folder.write_record(new)
        return Loop(dynamics, guards, folder, state).go(progress, wish)


def _described(dynamics: Dynamics) -> dict:
    """The record of a run of these dynamics."""
    job = dynamics.job
    masses = as_record(job.atoms.numbers, dynamics.masses[: len(job.atoms)].cpu().numpy())  # of one bead
    return record.describe(dynamics.settings, job.structure, job.model, dynamics.degrees_of_freedom, masses)


def _guards(job: Job, settings: Settings, folder: RunFolder, say: Callable[[str], None]) -> Guards:
    guards = Guards(settings, job.atoms, folder.path, say)
    guards.card_uncertainty = job.model.get("uncertainty_limit")
    guards.unlike = job.unlike
    return guards


def _mention_turned_cell(job: Job, say: Callable[[str], None]) -> None:
    box = standard_box(job.atoms.cell.array, job.atoms.pbc)
    if box is not None and box.rotation is not None:
        say(
            "note: DCD and PDB want a cell with a along x and b in the xy plane; the trajectory and its "
            "topology are turned so, the run itself is not"
        )


def check_unfinished(record: Mapping, done: int, steps: int, folder: RunFolder) -> None:
    """Raise :class:`InputError` when a run that has done ``done`` steps has none left of ``steps`` in all."""
    if steps <= done:
        state = "finished" if is_finished(record, done, steps) else "already"
        raise InputError(
            f"the run in {folder.path} is {state} at step {done}; to extend it, add --steps N with N above {done}"
        )


def is_finished(record: Mapping, done: int, steps: int) -> bool:
    """Whether ``done`` steps are all that the run was to have, and all of the ``steps`` that are asked for now."""
    return done >= max(steps, record["settings"].get("steps", Settings.steps))


def add_plots(settings: Settings, folder: RunFolder, job: Job, say: Callable[[str], None]) -> bool:
    """Draw the plots of a finished run that was killed before it had them; whether there was anything to draw."""
    if not lacks_plots(folder, settings):
        return False
    say(f"the run in {folder.path} is at its last step; plots that are missing or older than its log are drawn now")
    draw_plots(folder, settings, len(job.atoms))
    return True


def _tell_differences(
    old: dict, job: Job, settings: Settings, n_fixed: int, step: int, say: Callable[[str], None]
) -> None:
    """What keeps the files of this run from being as if it had never stopped."""
    if old["model"].get("threads") != job.model.get("threads"):
        say("note: another number of threads than before; sums may round differently, so not the same bytes")
    if old["model"].get("kernel") != job.model.get("kernel"):
        say(
            f"note: forces by another kernel than before ({old['model'].get('kernel')}); they round differently, "
            "so not the same bytes"
        )
    own_labels = "masses" in old  # a record has them since frames hold the model's own energy and forces
    if settings.save and not own_labels and (settings.restraints or n_fixed or not job.model["conservative"]):
        say(
            f"note: in frames after step {step} energy and forces are the model's own; in those before, springs, fixed "
            "atoms and the balance of direct forces had a part"
        )


def _go_on(
    job: Job,
    settings: Settings,
    folder: RunFolder,
    old: dict,
    progress: Silent,
    say: Callable[[str], None],
    announce: Callable[[], None],
    wish: StopWish | None,
    up_to: int | None,
) -> Result:
    wanted = record.describe(settings, job.structure, job.model, old.get("degrees_of_freedom", 0))
    record.check_same(old, wanted, folder.path)
    dynamics = dynamics_of(job, settings)
    new, job = _described(dynamics), dynamics.job
    guards = _guards(job, settings, folder, say)
    last = _last_restart(job, settings, folder, up_to)
    done = last.state.step if last else 0
    if is_finished(old, done, settings.steps) and add_plots(settings, folder, job, say):
        return Result(done, True, None, 0.0)
    check_unfinished(old, done, settings.steps, folder)
    if last is None:  # killed before the first restart file; the first frame comes again
        state = initial_state(job.atoms, dynamics, settings, guards, job.device)
    else:
        state = last.state
        if last.reference is not None:
            follow(job.bound, last.reference_cell)
            job.bound.neighbor_list.rebuild_at(job.bound.systems.with_positions(last.reference))
    announce()
    say(f"resuming {folder.path} at step {state.step}")
    _tell_differences(old, job, settings, len(dynamics.fixed), state.step, say)
    if last is not None and guard_rules(old["settings"].get("guards", "")) == guard_rules(settings.guards):
        guards.go_on(last.tripped)  # other guards look afresh
    resumed = {"step": state.step, "versions": new["versions"], "threads": job.model.get("threads")}
    changed = {k: new["settings"][k] for k in record.MAY_CHANGE}
    record_now = old | {"settings": old["settings"] | changed, "masses": new["masses"]}
    record_now["resumed"] = [*old["resumed"], resumed]
    loop = Loop(dynamics, guards, folder, state, last)

    def opened() -> None:
        if last is not None:
            restart.settle(folder.restart, last)
        folder.write_record(record_now)

    return loop.go(progress, wish, opened=opened)


def _last_restart(job: Job, settings: Settings, folder: RunFolder, up_to: int | None) -> Restart | None:
    """The newest restart file, of a step up to ``up_to``, that is whole and whose frames and lines are in all files.

    None when the run was killed before its first restart file, so that nothing is lost by starting over.
    Raises :class:`RunError` when there are restart files or frames, but none that fit together.
    """
    frames = whole_frames(folder.trajectory, len(job.atoms), bool(job.atoms.pbc.any()))
    short: list[str] = []

    def usable(r: Restart) -> bool:
        short[:] = filter(None, (shortage(path, size) for path, size in _sizes(r, job, settings, folder).items()))
        return not short and (up_to is None or r.state.step <= up_to)

    last = restart.load(folder.restart, job.device, usable)
    anything = frames > 1 or folder.restart.exists() or restart.previous(folder.restart).exists()
    if last is None and anything:
        why = "; ".join(short) or f"there is no whole restart file beside {folder.trajectory.name} of {frames} frames"
        raise RunError(
            f"cannot resume {folder.path}: {why}; nothing was changed. Put back what is missing, or start another run "
            "with --out"
        )
    return last


def _sizes(last: Restart, job: Job, settings: Settings, folder: RunFolder) -> dict[Path, int]:
    """Bytes that the files of a run had at the moment of ``last``."""
    sizes = {folder.trajectory: file_size(last.frames, len(job.atoms), bool(job.atoms.pbc.any()))}
    if settings.beads:
        sizes[folder.centroids] = sizes[folder.trajectory]
    more = {folder.path / FILES[name]: size for name, size in last.sizes.items() if name in FILES}
    return sizes | {folder.log: last.log_bytes} | more
