"""Where weights live that the package does not bundle: one folder per user, made only when something is put there."""

import os
from pathlib import Path


def weights_home() -> Path:
    """``$OMNICALC_HOME/weights``, else ``omnicalc/weights`` in the user's data folder (XDG: ``~/.local/share``)."""
    home = os.environ.get("OMNICALC_HOME")
    if home:
        return Path(home).expanduser().absolute() / "weights"
    data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    if not data.is_absolute():  # the XDG specification: a relative path there is to be ignored
        data = Path("~/.local/share").expanduser()
    return data / "omnicalc" / "weights"
