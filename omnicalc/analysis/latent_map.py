"""Maps of embeddings: two coordinates per structure, coloured by size and by a property."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omnicalc.errors import InputError
from omnicalc.files import write_atomically

METHODS = ("pca", "umap")
FEWEST = 3  # structures that have a map


def coordinates(embeddings: np.ndarray, method: str = "pca", seed: int = 0) -> tuple[np.ndarray, str]:
    """Two coordinates of every embedding, (S, D) -> (S, 2), and what they are, in words.

    "pca": the two directions of largest variance of the standardised embeddings; their signs are fixed by the largest
    entry. "umap" needs the package umap-learn. Raises :class:`InputError` for fewer than :data:`FEWEST` structures.
    """
    if method not in METHODS:
        raise InputError(f"method = {method!r} given; choose one of: {', '.join(METHODS)}")
    if len(embeddings) < FEWEST:
        raise InputError(f"{len(embeddings)} structures given; a map needs at least {FEWEST}")
    spread = embeddings.std(0)
    scaled = (embeddings - embeddings.mean(0)) / np.where(spread > 1e-9 * max(spread.max(), 1e-300), spread, 1.0)
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise InputError("UMAP needs the package umap-learn; type: pip install umap-learn, or use pca") from None
        return np.asarray(UMAP(random_state=seed).fit_transform(scaled)), "UMAP"
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    signs = np.sign(vt[np.arange(2), np.abs(vt[:2]).argmax(1)])
    share = 100 * (s[:2] ** 2).sum() / max((s**2).sum(), 1e-300)
    return u[:, :2] * s[:2] * signs, f"principal components, {share:.0f} % of the variance"


def explained(embeddings: np.ndarray, values: np.ndarray, folds: int = 5, seed: int = 0) -> float:
    """R^2 of ridge regression from embeddings (S, D) to ``values`` (S,) on held-out fifths: how much of a property an
    embedding holds linearly; 0 or less: nothing. The penalty is 1 per structure on standardised embeddings.
    """
    order = np.random.default_rng(seed).permutation(len(values))
    found = np.empty(len(values))
    for test in np.array_split(order, folds):
        train = np.setdiff1d(order, test)
        mean, spread = embeddings[train].mean(0), embeddings[train].std(0)
        x = (embeddings - mean) / np.where(spread > 0, spread, 1.0)
        offset = values[train].mean()
        normal = x[train].T @ x[train] + np.eye(x.shape[1])
        found[test] = x[test] @ np.linalg.solve(normal, x[train].T @ (values[train] - offset)) + offset
    return float(1 - ((found - values) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def draw_map(
    path: Path,
    embeddings: Mapping[str, np.ndarray],
    colours: Mapping[str, np.ndarray],
    *,
    method: str = "pca",
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Write a figure (PNG) with a row for each set of embeddings (S, D) and a column for each colour (S,).

    Every panel says how much of its colour the embeddings hold linearly (:func:`explained`). Returns the coordinates.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(colours), 3.6 * len(embeddings)), layout="constrained")
    axes = figure.subplots(len(embeddings), len(colours), squeeze=False)
    found = {}
    for row, (name, vectors) in zip(axes, embeddings.items(), strict=True):
        points, what = coordinates(vectors, method, seed)
        found[name] = points
        for axis, (label, values) in zip(row, colours.items(), strict=True):
            dots = axis.scatter(*points.T, c=values, s=9, cmap="viridis", linewidths=0)
            figure.colorbar(dots, ax=axis, label=label)
            axis.set_xticks([])
            axis.set_yticks([])
            r2 = explained(vectors, np.asarray(values, dtype=float)) if len(values) >= 10 and np.ptp(values) else None
            axis.set_title(name + ("" if r2 is None else f"  (linear R² {r2:.2f})"), fontsize=10)
        row[0].set_ylabel(what, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()))
    return found
