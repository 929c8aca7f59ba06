"""``python -m omnicalc``: the same as ``omnicalc``, where that is not on the path."""

from omnicalc.cli import main

if __name__ == "__main__":  # processes that a training starts import this file as well
    main()
