"""forecart: ads candidate generation from behavioural sequences.

    import forecart

    run = forecart.run("nano", folder="runs/nano")
    run.report_path
    run.candidates("advertiser", user_id="u000000001")

The names below are loaded when they are first used, so that `import forecart` costs nothing and what only
reads a finished run never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forecart.api import Run, open_run, run
    from forecart.config import RunConfig, load_config
    from forecart.errors import ArtifactError, ConfigError, DataError, ForecartError, NotFoundError

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "ForecartError",
    "NotFoundError",
    "Run",
    "RunConfig",
    "load_config",
    "open_run",
    "run",
]

_HOME: Final = {
    "ArtifactError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "ForecartError": "errors",
    "NotFoundError": "errors",
    "Run": "api",
    "RunConfig": "config",
    "load_config": "config",
    "open_run": "api",
    "run": "api",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that has it."""
    if name not in _HOME:
        raise AttributeError(f"module 'forecart' has no attribute {name!r}")
    value = getattr(import_module(f"forecart.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names too that are not loaded yet."""
    return sorted([*globals(), *__all__])
