"""Grow a learning system to new domains. ``graft.simulate(world, method=...)`` is the command.

Names are looked up when they are first used: importing graft loads no engine.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft.api import (
        FinishedModel,
        Forgetting,
        LoadedModel,
        Run,
        forget,
        load_model,
        open_run,
        resume,
        simulate,
    )

__all__ = [
    "FinishedModel",
    "Forgetting",
    "LoadedModel",
    "Run",
    "forget",
    "load_model",
    "open_run",
    "resume",
    "simulate",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'graft' has no attribute {name!r}")
    from graft import api

    return getattr(api, name)
