"""N copies of a run with different seeds, computed as one batch.

Each has a folder of its own, ``replica_K``, which is that of a run with the seed SEED + K: the same files, the same
restart. The folder around them has a record of what was asked for, and at the end replicas.csv.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError, RunError
from omnicalc.md import record, restart
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.files import is_behind, replace_file
from omnicalc.md.folder import RunFolder
from omnicalc.md.gang import Gang, ReleasedError, renew_thread_pool
from omnicalc.md.initial import given_velocities
from omnicalc.md.job import Job
from omnicalc.md.loop import Result
from omnicalc.md.progress import Silent
from omnicalc.md.run import add_plots, check_unfinished, is_finished, run
from omnicalc.md.settings import MAX_SEED, Settings
from omnicalc.signals import StopWish

if TYPE_CHECKING:
    from ase import Atoms

_TABLE = "replicas.csv"
MAX_REPLICAS = 10_000


@dataclass
class _Replica:
    settings: Settings
    folder: RunFolder
    job: Job
    up_to: int | None  # the step to go on from, where it has a restart file of it
    result: Result | None = None
    error: BaseException | None = None


def run_replicas(
    job: Job,
    settings: Settings,
    folder: RunFolder,
    count: int,
    *,
    resume: bool = False,
    progress: Silent | None = None,
    say: Callable[[str], None] = lambda text: None,
    announce: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Run ``count`` copies in sub-folders of ``folder``, or go on with those there; results in their order.

    A copy that has to stop does not stop the others. Arguments and errors are those of :func:`omnicalc.md.run.run`;
    ``progress`` follows the first copy.
    """
    check_count(count, settings)
    goes_on = resume and folder.read_record() is not None
    new = record.describe(settings, job.structure, job.model, Dynamics(job, settings).degrees_of_freedom)
    new["replicas"] = count
    if not goes_on:
        check_differ(count, settings, job.atoms)
        folder.check_free()
    with StopWish() as wish, folder.locked():
        old = folder.read_record() if goes_on else None
        if old is not None:
            record.check_same(old, new, folder.path)
            changed = {k: new["settings"][k] for k in record.MAY_CHANGE}
            new = old | {"settings": old["settings"] | changed}
        gang = Gang(job.bound, count, wish)
        replicas = _replicas(job, settings, folder, gang)
        if old is not None:
            if _complete(replicas, old, settings, folder, say):
                return [replica.result for replica in replicas]
            _choose_steps(replicas, old, settings, folder, say)

        def start() -> None:
            announce()
            folder.write_record(new)

        _in_threads(replicas, gang, start, progress or Silent(), say, resume)
    try:
        _write_table(folder.path / _TABLE, replicas)
    finally:
        _raise_errors(replicas)  # they say more than that there is no table
    return [replica.result for replica in replicas]


def check_count(count: int, settings: Settings) -> None:
    """Raise :class:`InputError` for a number of replicas that cannot be."""
    if not 1 <= count <= MAX_REPLICAS:
        raise InputError(f"{count} replicas; a number from 1 to {MAX_REPLICAS} is needed (--replicas)")
    if settings.beads:
        raise InputError("the beads of a path-integral run are a batch already; leave --replicas or --beads out")
    if settings.engine == "openmm":
        raise InputError(
            "OpenMM's random numbers are one sequence per process, so replicas would share it; leave --engine out"
        )
    if settings.seed + count - 1 > MAX_SEED:
        raise InputError(
            f"replica K has the seed {settings.seed} + K, too large for {count} replicas; give a smaller --seed"
        )


def check_differ(count: int, settings: Settings, atoms: Atoms) -> None:
    """Raise :class:`InputError` when all replicas would be one trajectory, since nothing of them is drawn."""
    given = given_velocities(atoms, settings) is not None
    if count == 1 or settings.has_noise or (settings.temperature_K > 0 and not given):
        return
    start = "with the velocities in the structure file" if given else "at rest"
    raise InputError(
        f"all {count} replicas would be one trajectory: they start {start}, and nothing later is drawn; use --ensemble "
        f"nvt --thermostat langevin at a positive --temperature{', a structure without velocities' * given}, or leave "
        "--replicas out"
    )


def replica_folder(path: Path, number: int, count: int) -> Path:
    return path / f"replica_{number:0{len(str(count - 1))}d}"


def _replicas(job: Job, settings: Settings, folder: RunFolder, gang: Gang) -> list[_Replica]:
    count = len(gang.members)
    return [
        _Replica(
            replace(settings, seed=settings.seed + k),
            RunFolder(replica_folder(folder.path, k, count)),
            replace(job, bound=member),
            None,
        )
        for k, member in enumerate(gang.members)
    ]


def _complete(replicas: list[_Replica], old: Mapping, settings: Settings, folder: RunFolder, say) -> bool:
    """Where all have finished, write what a kill at the end has left out: plots, table. Whether there was anything."""
    done = [max(restart.steps(replica.folder.restart, replica.job.device), default=0) for replica in replicas]
    if not is_finished(old, min(done), settings.steps):
        return False
    drawn = [add_plots(replica.settings, replica.folder, replica.job, say) for replica in replicas]
    table = folder.path / _TABLE
    lacks_table = any(is_behind(table, replica.folder.log) for replica in replicas)
    if lacks_table:
        _write_table(table, replicas)
    for replica, step in zip(replicas, done, strict=True):
        replica.result = Result(step, True, None, 0.0)
    return lacks_table or any(drawn)


def _choose_steps(replicas: list[_Replica], old: Mapping, settings: Settings, folder: RunFolder, say) -> None:
    """The step that all go on from: the latest that every one of them has a restart file of, since a batch is the same
    only when all members are at the same step. Those that have none of it, having stopped on their own, go on from
    their own last one.
    """
    known = [restart.steps(replica.folder.restart, replica.job.device) for replica in replicas]
    newest = [max(steps, default=0) for steps in known]
    check_unfinished(old, min(newest), settings.steps, folder)
    common = min(newest)
    for replica, steps in zip(replicas, known, strict=True):
        replica.up_to = common if common in steps else None
        newest_step = max(steps, default=0)  # none: killed before its first restart file, it begins anew
        if replica.up_to is None and newest_step >= settings.steps:
            replica.result = Result(newest_step, True, None, 0.0)
            add_plots(replica.settings, replica.folder, replica.job, say)


def _in_threads(
    replicas: list[_Replica], gang: Gang, start: Callable[[], None], progress: Silent, say, resume: bool
) -> None:
    def work(number: int, replica: _Replica) -> None:
        error = None
        try:
            replica.result = run(
                replica.job,
                replica.settings,
                replica.folder,
                resume=resume,
                progress=progress if number == first else Silent(),
                say=_voice(number, first, say),
                announce=lambda: gang.park(number),
                wish=gang.wish,
                up_to=replica.up_to,
            )
        except BaseException as caught:  # told by the thread that waits for this one
            error = replica.error = caught
        finally:
            gang.leave(number, error)

    to_run = [pair for pair in enumerate(replicas) if pair[1].result is None]
    first = to_run[0][0]
    for number, replica in enumerate(replicas):
        if replica.result is not None:  # finished before
            gang.leave(number)
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in to_run]
    try:
        _start(threads, gang)
        gang.serve(start)
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _start(threads: list[threading.Thread], gang: Gang) -> None:
    renew_thread_pool()
    for number, thread in enumerate(threads):
        try:
            thread.start()
        except RuntimeError as error:  # a limit on processes or memory
            gang.break_up(error)
            raise RunError(
                f"only {number} of {len(threads)} replicas got a thread ({error}); a smaller --replicas, or a higher "
                "limit on processes or memory (ulimit), is needed"
            ) from error


def _voice(number: int, first: int, say: Callable[[str], None]) -> Callable[[str], None]:
    """The first replica under way says what concerns all of them; warnings come from each, with its number."""

    def speak(text: str) -> None:
        if text.startswith("warning"):
            say(f"replica {number}: {text}")
        elif number == first:
            say(text)

    return speak


def _raise_errors(replicas: list[_Replica]) -> None:
    errors = [(k, replica.error) for k, replica in enumerate(replicas) if replica.error is not None]
    if not errors:
        return
    number, error = next((pair for pair in errors if not isinstance(pair[1], ReleasedError)), errors[0])
    if isinstance(error, RunError) and any(replica.result is not None for replica in replicas):
        raise RunError(f"{len(errors)} of {len(replicas)} replicas stopped; replica {number}: {error}") from error
    raise error


def _write_table(path: Path, replicas: list[_Replica]) -> None:
    """Means over the second half of each replica's log."""
    rows = []
    for k, replica in enumerate(replicas):
        if replica.folder.log.exists():
            rows.append(f"{k},{replica.settings.seed},{','.join(_means(replica.folder.log))}")
    if rows:
        header = "replica,seed,last_step,lines,potential_eV,temperature_K"
        replace_file(path, "\n".join([header, *rows, ""]).encode())


def _means(log: Path) -> list[str]:
    with log.open() as file:
        names, first = file.readline().rstrip().split(","), file.readline()
        if not first:
            return ["0", "0", "nan", "nan"]
        wanted = [names.index(name) for name in ("step", "potential_eV", "temperature_K")]
        rows = np.loadtxt(chain([first], file), delimiter=",", usecols=wanted, ndmin=2)  # logs have millions of lines
    half = rows[len(rows) // 2 :]
    means = half.mean(axis=0)
    return [f"{rows[-1, 0]:.0f}", str(len(half)), f"{means[1]:.8f}", f"{means[2]:.4f}"]
