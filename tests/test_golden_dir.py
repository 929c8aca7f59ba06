"""The option that points the golden tests to another folder."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_folder_that_is_not_there_is_an_error_and_not_a_row_of_skipped_tests(tmp_path):
    words = ["-q", "-p", "no:cacheprovider", "tests/golden/test_atom.py", "--golden-dir", str(tmp_path / "mistyped")]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 4
    assert "mistyped: no such folder" in done.stderr
