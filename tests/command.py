"""The command line inside a test."""

from click.testing import CliRunner

from omnicalc.cli import group


def omnicalc(*words: object, code: int = 0) -> str:
    """Output of a command that is to exit with ``code``; an error that it raises comes out as it is."""
    result = CliRunner().invoke(group, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
