"""SCD against the released model at settings that the cases of ``<golden-dir>/scd`` do not have."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.gradients import forces_from_edges
from omnicalc.models.graph import Graph
from omnicalc.models.scd import from_published
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems

FOLDER = "scd_settings"


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--golden-dir") / FOLDER
    files = sorted(folder.glob("*.npz"))
    metafunc.parametrize("file", files, ids=[f.stem for f in files])


def test_outputs_and_forces(file):
    given = np.load(file)
    weights = {k.removeprefix("weight:"): torch.from_numpy(given[k]) for k in given if k.startswith("weight:")}
    model = from_published({**json.loads(str(given["config"])), "detach_modulation": True}, weights).eval()
    parts = np.split(np.arange(len(given["z"])), np.cumsum(given["natoms"])[:-1])
    systems = Systems.from_atoms([Atoms(given["z"][p], given["pos"][p]) for p in parts])
    found = neighbors(systems, model.cutoff)
    vectors = found.vectors(systems.positions, systems.cell, systems.system).requires_grad_(True)
    graph = Graph.build(systems, found, vectors, torch.zeros(len(parts), dtype=torch.int64))
    edges = model.edges(graph)
    x, vec = model.features(edges)
    y = model.values(graph)
    (gradient,) = torch.autograd.grad(y.sum(), vectors)
    mine = {
        "x": x,
        "vec": vec,
        "mol_emb": model.embedding_head(x, graph.system, edges.n_systems),
        "noise_pred": model.noise_head(x, vec)[1],
        "y": y.unsqueeze(1),
        "forces": forces_from_edges(gradient, graph.index),
    }
    for key, value in mine.items():
        assert value.detach().numpy() == pytest.approx(given[f"wanted:{key}"], rel=1e-9, abs=1e-9), key
