"""Threads of a command are those of the process again when it ends."""

import pytest
import torch

from omnicalc.cli.threads import cpu_threads


def test_threads_are_as_they_were_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError), cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before
