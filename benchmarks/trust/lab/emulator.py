"""A bad link in user space: Ethernet frames between two machines' TAP devices.

For kernels without ``tc netem``. A process a link, started by ``lab.network``:

    emulator.py SERVER_NETWORK SERVER_DEVICE DEVICE_NETWORK DEVICE_DEVICE SEED

Each line of its standard input is a ``LinkShape`` in JSON, in force from then on; it ends with
its input.
"""

import ctypes
import fcntl
import json
import os
import random
import select
import struct
import sys
import time
from collections import deque

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME_BYTES = 65536
_BATCH = 64


class OneWay:
    """Frames in one direction: lost, queued for the rate, then delayed, in their order."""

    def __init__(self, source: int, sink: int, seed: str) -> None:
        self.source = source
        self._sink = sink
        self._chance = random.Random(seed)  # noqa: S311  (which packet is lost is no secret)
        self._due: deque[tuple[float, bytes]] = deque()
        self._leaving: deque[float] = deque()
        self.shape(delay_s=0.0, loss=0.0, rate_bits_per_s=None, queue_packets=1)

    def shape(
        self, delay_s: float, loss: float, rate_bits_per_s: float | None, queue_packets: int
    ) -> None:
        self._delay_s, self._loss = delay_s, loss
        self._rate_bits_per_s, self._queue_packets = rate_bits_per_s, queue_packets

    def take(self, now_s: float) -> None:
        """Read what has come."""
        for _ in range(_BATCH):
            try:
                frame = os.read(self.source, _FRAME_BYTES)
            except BlockingIOError:
                return
            if not self._loss or self._chance.random() >= self._loss:
                self._admit(frame, now_s)

    def give(self, now_s: float) -> float | None:
        """Write what is due; seconds until something else is, None where nothing waits."""
        while self._due and self._due[0][0] <= now_s:
            try:
                os.write(self._sink, self._due.popleft()[1])
            except OSError:
                continue  # a network card that is down loses what comes
        return self._due[0][0] - now_s if self._due else None

    def _admit(self, frame: bytes, now_s: float) -> None:
        sent_s = now_s
        if self._rate_bits_per_s is not None:
            while self._leaving and self._leaving[0] <= now_s:
                self._leaving.popleft()
            if len(self._leaving) >= self._queue_packets:
                return
            begin_s = self._leaving[-1] if self._leaving else now_s
            sent_s = begin_s + 8 * len(frame) / self._rate_bits_per_s
            self._leaving.append(sent_s)
        # A shape that changes does not let a later frame overtake.
        last_s = self._due[-1][0] if self._due else 0.0
        self._due.append((max(sent_s + self._delay_s, last_s), frame))


def open_tap(network: str, name: str) -> int:
    """A TAP device in another network namespace, which lives as long as what is returned."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(network, "rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {network}")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
    fcntl.ioctl(tap, _TUNSETIFF, request)
    return tap


def main(networks: list[str], names: list[str], seed: str) -> None:
    server, device = (open_tap(*pair) for pair in zip(networks, names, strict=True))
    ways = [OneWay(server, device, f"{seed}-down"), OneWay(device, server, f"{seed}-up")]
    print("ready", flush=True)
    control = sys.stdin.fileno()
    os.set_blocking(control, False)
    said = b""
    wait_s: float | None = None
    while True:
        ready, _, _ = select.select([control, server, device], [], [], wait_s)
        if control in ready:
            fresh = os.read(control, _FRAME_BYTES)
            if not fresh:
                return
            *lines, said = (said + fresh).split(b"\n")
            for line in lines:
                for way in ways:
                    way.shape(**json.loads(line))
                print("shaped", flush=True)
        for way in ways:
            if way.source in ready:
                way.take(time.monotonic())
        waits = [wait for way in ways if (wait := way.give(time.monotonic())) is not None]
        wait_s = max(0.0, min(waits)) if waits else None


if __name__ == "__main__":
    main([sys.argv[1], sys.argv[3]], [sys.argv[2], sys.argv[4]], sys.argv[5])
