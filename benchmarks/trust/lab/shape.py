"""How bad a link is."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkShape:
    """What happens to packets, each way by itself.

    ``delay_s`` one way; ``loss`` the chance of a packet, 0 to 1; ``rate_bits_per_s`` of frames
    with their headers, None: as fast as it goes. ``queue_packets`` may wait for the rate, and
    more are dropped.
    """

    delay_s: float = 0.0
    loss: float = 0.0
    rate_bits_per_s: float | None = None
    queue_packets: int = 100

    def __post_init__(self) -> None:
        if self.delay_s < 0 or not 0 <= self.loss < 1 or self.queue_packets < 1:
            raise ValueError(f"link shape: got {self}, wanted a delay from 0, a loss of 0 to 1")
        if self.rate_bits_per_s is not None and self.rate_bits_per_s <= 0:
            raise ValueError(f"link shape: got a rate of {self.rate_bits_per_s}, wanted above 0")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def netem_words(self) -> list[str]:
        """The shape as arguments of ``tc ... netem``; its limit counts what is delayed, too."""
        words = ["delay", f"{self.delay_s * 1e6:.0f}us", "loss", f"{self.loss * 100:.4f}%"]
        limit = 100_000
        if self.rate_bits_per_s is not None:
            words += ["rate", f"{self.rate_bits_per_s:.0f}bit"]
            limit = self.queue_packets + int(self.delay_s * self.rate_bits_per_s / 8 / 1500)
        return [*words, "limit", str(limit)]
