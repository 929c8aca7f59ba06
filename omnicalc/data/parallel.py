"""Many independent tasks: in this process, in local processes, or on a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omnicalc.errors import InputError

_AHEAD = 4  # tasks handed out per worker before their results are asked for


@contextlib.contextmanager
def runner(processes: int, scheduler: str | None = None) -> Iterator[Callable]:
    """``run_all(function, arguments)``: yields ``(argument, function(argument))`` as they are done.

    Args:
        processes: on this machine; 1 is this process, without Dask.
        scheduler: address of a Dask scheduler, as in tcp://host:8786; then its workers do the work.

    Raises:
        InputError: no scheduler answers, or Dask is not installed.
    """
    if scheduler is None and processes == 1:
        yield lambda function, arguments: ((argument, function(argument)) for argument in arguments)
        return
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(
            "several processes need Dask; type: pip install 'omnicalc[label]', or use --processes 1"
        ) from None
    environment = {key: "1" for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": environment}))
            cluster = LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None, silence_logs=40)
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
        else:
            try:
                client = stack.enter_context(Client(scheduler, timeout="20s"))
            except (OSError, ValueError, TimeoutError) as error:
                raise InputError(f"no Dask scheduler at '{scheduler}': {error}") from None
        yield lambda function, arguments: _run(client, function, arguments)


def _run(client, function: Callable, arguments: Iterable) -> Iterator[tuple[Any, Any]]:
    """Hands out a few tasks per worker at a time, so that stopping early wastes little."""
    from distributed import as_completed

    rest = iter(arguments)
    shared = client.scatter(function, broadcast=True)
    limit = _AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    running, pending = {}, as_completed()

    def submit() -> None:
        for argument in rest:
            future = client.submit(_call, shared, argument, pure=False)
            running[future.key] = argument
            pending.add(future)
            return

    for _ in range(limit):
        submit()
    while running:
        future = next(pending)
        argument = running.pop(future.key)
        submit()
        yield argument, future.result()


def _call(function: Callable, argument: Any) -> Any:
    return function(argument)
