"""``python -m omnicalc``: the same as ``omnicalc``, where that is not on the path."""

from omnicalc.cli import main

main()
