"""Strict comparison of published tensors, renamed to ours, with those of a network."""

from collections.abc import Mapping

from torch import Tensor

from omnicalc.errors import WeightsError

UNEXPECTED = "unexpected {ours} {shape}"
MISSHAPEN = "{ours} has shape {shape}, the config asks for {wanted}"


def misfits(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    published: Mapping[str, str] | None = None,
    *,
    unexpected: str = UNEXPECTED,
    misshapen: str = MISSHAPEN,
) -> list[str]:
    """What keeps ``state`` from being loaded into a network whose tensors are ``wanted``, both by our names.

    ``published``: our name -> the published one, which the templates of the lines may show as ``{theirs}``.
    """
    ours, needed = state.keys(), wanted.keys()
    mistaken = [(unexpected, k) for k in sorted(ours - needed)]
    mistaken += [(misshapen, k) for k in sorted(ours & needed) if wanted[k].shape != state[k].shape]
    lines = [f"missing {k} {tuple(wanted[k].shape)}" for k in sorted(needed - ours)]
    for template, key in mistaken:
        lines.append(
            template.format(
                ours=key,
                theirs=published[key] if published else key,
                shape=tuple(state[key].shape),
                wanted=tuple(wanted[key].shape) if key in needed else None,
            )
        )
    return lines


def refuse(problems: list[str]) -> None:
    """Raise :class:`WeightsError` that names all of ``problems``, unless there are none."""
    if problems:
        raise WeightsError("published tensors do not fit the config; nothing was loaded:\n  " + "\n  ".join(problems))
