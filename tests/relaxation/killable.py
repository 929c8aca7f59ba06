"""Relaxations in forked children that the tests may kill. A request holds arguments of ``relax``; ``die_at``: die of
SIGKILL at the n-th operation on files.
"""

import torch

from tests.forking import serve
from tests.md.killable import die_at

from .test_relax import relax


def child(request: dict) -> int:
    if count := request.pop("die_at", None):
        die_at(count)
    outcome = relax(**request)
    return 0 if outcome.signal is None else 128 + outcome.signal


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(child)
