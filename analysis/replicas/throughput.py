"""Ten replicas of 64 waters as one batch against ten runs in turn, in the same process, alternately.

    python analysis/replicas/throughput.py --rounds 5 --steps 100 --threads 2

Counted is the time of the steps alone, without that of starts.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from ase.io import read

from omnicalc.cli.memory import keep_freed_memory
from omnicalc.md import loop
from omnicalc.md.folder import RunFolder
from omnicalc.md.job import build_job
from omnicalc.md.replicas import run_replicas
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.registry import load_potential


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ubio-s3")
    parser.add_argument("--structure", default="examples/water.xyz")
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    loop.plots.draw = lambda *arguments, **keywords: None  # no part of the question
    potential, atoms = load_potential(given.model), read(given.structure)
    settings, ratios = Settings(steps=given.steps, seed=1), []

    def job():
        return build_job(atoms, potential, file=given.structure, read_options={})

    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            alone = [
                run(job(), replace(settings, seed=1 + k), RunFolder(Path(folder) / str(k))).steps_per_s
                for k in range(given.replicas)
            ]
            together = run_replicas(job(), settings, RunFolder(Path(folder) / "all"), given.replicas)
        in_turn = given.replicas / sum(1 / rate for rate in alone)
        batch = given.replicas * min(result.steps_per_s for result in together)
        ratios.append(batch / in_turn)
        print(f"in turn {in_turn:.1f} steps/s, one batch {batch:.1f}: {ratios[-1]:.2f} times", flush=True)
    print(f"median of {given.rounds}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
