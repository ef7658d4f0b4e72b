"""Where encoders compute, and in which precision.

Encoders are a network's work, and run on an accelerator where one is asked for. Rows, heads, losses
and whatever else a method computes stay on the processor: ``Network.features`` moves a batch to its
encoder and the features back, so that methods need no word about devices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graft.core.streams import Rows, Streams
from graft.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Placement:
    """A torch device such as "cuda:1", and the precision of torch's autocast."""

    accelerator: str = "cpu"
    autocast: Literal["none", "bfloat16"] = "none"

    @property
    def is_plain(self) -> bool:
        """Whether it is float32 on the processor, as compiled kernels compute."""
        return self == PLAIN

    def features(self, encoder: nn.Module, x: Rows) -> Tensor:
        """What an encoder that is here makes of a batch, back on the processor as float32."""
        device = torch.device(self.accelerator)
        moved: Any = (
            Streams({name: part.to(device) for name, part in x.items()})
            if isinstance(x, Streams)
            else x.to(device)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast != "none"):
            features_BF: Tensor = encoder(moved)
        return features_BF.to("cpu", torch.float32)

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Torch's generators from a seed, as dropout draws from them; afterwards as they were."""
        device = torch.device(self.accelerator)
        own = [] if device.type == "cpu" else [device.index or 0]
        kind = "cuda" if device.type == "cpu" else device.type
        with torch.random.fork_rng(devices=own, device_type=kind):
            # torch.manual_seed would notify every accelerator, which takes as long as three steps.
            torch.default_generator.manual_seed(seed)
            if own:
                torch.get_device_module(device).manual_seed(seed)
            yield


PLAIN = Placement()
_current: ContextVar[Placement] = ContextVar("placement", default=PLAIN)


def placement() -> Placement:
    """Where networks that are built now compute."""
    return _current.get()


@contextmanager
def placed(where: Placement) -> Iterator[None]:
    """Networks that are built inside the block compute there."""
    before = _current.set(where)
    try:
        yield
    finally:
        _current.reset(before)


def check_accelerator(name: str) -> None:
    """Raises ConfigError for a torch device that this machine cannot compute on."""
    try:
        torch.zeros(1, device=torch.device(name)).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no such device"
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise ConfigError(
            f"--accelerator: got {name!r}, wanted one of {', '.join(there)}: {reason}"
        ) from error
