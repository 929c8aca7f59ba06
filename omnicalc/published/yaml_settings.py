"""The settings published beside weights, as a YAML file."""

from pathlib import Path

from omnicalc.errors import InputError, WeightsError


def read_settings(path: Path) -> dict:
    """The settings in a published config.yaml. Raises :class:`InputError` or :class:`WeightsError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; the flat config.yaml that is published beside the weights is needed: "
            "--config config.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    try:
        import yaml
    except ImportError:
        raise InputError("reading a published config needs PyYAML; type: pip install pyyaml") from None
    try:
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise WeightsError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise WeightsError(f"{path}: a table of settings is needed (name: value, one a line)")
    return settings
