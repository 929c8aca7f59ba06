"""What can be saved with every frame beside the trajectory, and in which files."""

from omnicalc.errors import InputError

FILES = {"extxyz": "frames.xyz", "xtc": "traj.xtc"}  # what is written, and where
CHOICES = ("forces", "velocities", *FILES)


def formats(save: str) -> list[str]:
    """Keys of FILES that ``save``, such as ``forces,velocities``, asks for; :class:`InputError` for other words."""
    asked = words(save)
    wrong = [word for word in sorted(asked) if word not in CHOICES]
    if wrong:
        raise InputError(f"'{wrong[0]}' cannot be saved; known: {', '.join(CHOICES)} (--save)")
    return [name for name in FILES if name in asked or (name == "extxyz" and {"forces", "velocities"} & asked)]


def words(save: str) -> set[str]:
    """Words between commas."""
    return {word for word in (piece.strip() for piece in save.split(",")) if word}
