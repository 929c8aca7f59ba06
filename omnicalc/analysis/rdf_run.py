"""The whole of `omnicalc analyze rdf`: open, compute, compare, write."""

from omnicalc.analysis.rdf import plan_rdf
from omnicalc.analysis.verbs import Written, run_verb


def run_rdf(source, pairs: list[str] | None = None, **settings) -> Written:
    """Analyse a trajectory and write rdf_A-B.csv, rdf.json and rdf.png: :func:`run_verb` of :func:`plan_rdf`."""
    return run_verb(plan_rdf, source, pairs=pairs, **settings)
