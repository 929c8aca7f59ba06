"""Calls into trajectory readers without their chatter, and with the process left as it was found."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Mute warnings inside, and restore the warning filters that importing MDAnalysis or ASE changes.

    A reader whose constructor fails also complains from its destructor ("Exception ignored in ..."); the one
    error that matters is raised anyway, so that hook is muted here as well.
    """
    hook = sys.unraisablehook
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda unraisable: None
        try:
            yield
        finally:
            sys.unraisablehook = hook
