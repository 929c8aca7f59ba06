"""Options shared by all tests."""

from pathlib import Path

GOLDEN = Path(__file__).parent / "golden" / "cases"


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=GOLDEN,
        help="folder of golden cases, one sub-folder per family (default: the copies in tests/golden/cases)",
    )
