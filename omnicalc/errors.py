"""Errors that a user can act on: what was given, what is allowed, what to type next."""

# no package index has it, so its name alone would not do
INSTALL_AGAIN = "install OmniCalc again: in a clone of it, pip install --force-reinstall --no-deps ."


class OmniCalcError(Exception):
    """Base class. The message is shown to the user as it is; the command line exits with code 2."""


class InputError(OmniCalcError, ValueError):
    """A structure, setting or file that the user gave cannot be used."""


class WeightsError(OmniCalcError):
    """Weights that are unknown, damaged, or not on this machine."""


class RunError(OmniCalcError):
    """A run had to stop; the message says where its last good state lies."""


class GuardError(RunError):
    """A guard stopped a run: what it wrote up to there is whole."""


class OmniCalcWarning(UserWarning):
    """Something that goes on but that the user should know; the command line shows it as one line."""


class KernelError(OmniCalcError):
    """A fast kernel cannot run this model here; plain torch can. The message is the reason."""

    def __init__(self, reason: str, *, not_built: bool = False):
        super().__init__(reason)
        self.not_built = not_built  # it could run here, had it been built at installation
