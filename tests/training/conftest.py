"""A folder with the toy's frames."""

import pytest

from tests.training.toy import write_frames


@pytest.fixture
def folder(tmp_path):
    write_frames(tmp_path)
    return tmp_path
