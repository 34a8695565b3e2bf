"""Optional packages, imported when they are needed."""

import importlib
from types import ModuleType

from stylegan.errors import ConfigError


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: such as "sklearn.metrics".
        extra: the extra of this project that installs the package.
        purpose: what needs it, for the error.

    Raises:
        ConfigError: if the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{purpose}: the package {package} is not installed",
            fix=f"pip install 'stylegan[{extra}]'",
        ) from None
