"""One test per folder of golden cases."""


def each_case(metafunc, family: str) -> None:
    """Parametrise the argument ``case`` of a test, where it has one, with the case folders of ``family``."""
    folder = metafunc.config.getoption("--golden-dir") / family
    if "case" in metafunc.fixturenames:
        cases = sorted(p.parent for p in folder.glob("*/config.json"))
        metafunc.parametrize("case", cases, ids=[c.name for c in cases])
