"""The command line inside a test."""

import pytest
from click.testing import CliRunner

from omnicalc.cli import group
from omnicalc.errors import OmniCalcError


def omnicalc(*words: object, code: int = 0) -> str:
    """Output of a command that is to exit with ``code``; an error that it raises comes out as it is."""
    result = CliRunner().invoke(group, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def refused(*words: object) -> str:
    """Message of a command that is to be refused; its exit code is for processes of their own to check."""
    with pytest.raises(OmniCalcError) as caught:
        omnicalc(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)
