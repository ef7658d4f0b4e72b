"""A server, its devices, and a link of its own to each."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from lab.node import Node
from lab.shape import LinkShape

SERVER_ADDRESS = "10.90.0.1"
_TOOLS = ("ip", "tc", "ethtool", "nsenter", "unshare", "setpriv")
_OFFLOADS = ("tso", "gso", "gro", "tx", "rx", "sg")
_EMULATOR = Path(__file__).with_name("emulator.py")
Shaper = Literal["none", "netem", "emulator"]


def unavailable() -> str | None:
    """Why there can be no laboratory here; None where there can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network laboratory: {', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "network laboratory: wants root"
    words = [shutil.which("unshare") or "", "--net", "--pid", "--fork", "true"]
    tried = subprocess.run(words, capture_output=True)
    return f"network laboratory: {tried.stderr.decode().strip()}" if tried.returncode else None


class Lab:
    """``with Lab(3) as lab:`` a server and three devices, each on a link that is its own.

    Links are veth pairs without segmentation offload, so that an interface counts the packets a
    cable would carry; MTU 1500. With ``shaped`` they can be made bad: by ``tc netem`` where the
    kernel has it, else by an emulator between TAP devices; ``shaper`` says which.
    """

    def __init__(self, num_devices: int, *, shaped: bool = False, seed: int = 0) -> None:
        self._seed = seed
        self._emulators: list[subprocess.Popen[str]] = []
        self.server = Node("server", SERVER_ADDRESS)
        self.devices: list[Node] = []
        try:
            self.server.configure("ip", "addr", "add", f"{SERVER_ADDRESS}/32", "dev", "lo")
            self.shaper: Shaper = self._shaper() if shaped else "none"
            for number in range(num_devices):
                address = f"10.91.{number // 250}.{number % 250 + 1}"
                self.devices.append(Node(f"device-{number}", address))
                self._connect(number)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all that runs in the laboratory; its networks go with it."""
        for node in (self.server, *self.devices):
            node.close()
        for emulator in self._emulators:
            emulator.kill()
            emulator.communicate()

    def shape(self, number: int, shape: LinkShape) -> None:
        """Make one device's link as bad as that from now on, both ways."""
        if self.shaper == "none":
            raise ValueError("laboratory: links are not shaped; ask for Lab(..., shaped=True)")
        if self.shaper == "emulator":
            self._tell(number, shape)
            return
        for node, name in ((self.server, f"d{number}"), (self.devices[number], "up0")):
            node.configure(
                "tc", "qdisc", "replace", "dev", name, "root", "netem", *shape.netem_words()
            )

    def _shaper(self) -> Shaper:
        try:
            self.server.configure("tc", "qdisc", "add", "dev", "lo", "root", "netem")
        except subprocess.CalledProcessError:
            return "emulator"
        self.server.configure("tc", "qdisc", "del", "dev", "lo", "root")
        return "netem"

    def _connect(self, number: int) -> None:
        server, device, name = self.server, self.devices[number], f"d{number}"
        if self.shaper == "emulator":
            self._emulate(number)
        else:
            server.configure(
                "ip", "link", "add", name, "type", "veth",
                "peer", "name", "up0", "netns", str(device.pid),
            )  # fmt: skip
        macs = [f"02:90:00:{side:02x}:{number // 250:02x}:{number % 250:02x}" for side in (0, 1)]
        # Neighbours are told beforehand: their search would be counted, and lost on a bad link.
        ends = (
            (server, name, macs, device.address, SERVER_ADDRESS),
            (device, "up0", macs[::-1], SERVER_ADDRESS, device.address),
        )
        device.configure("ip", "addr", "add", f"{device.address}/32", "dev", "lo")
        for node, port, (own, other), peer, source in ends:
            quiet = f"/proc/sys/net/ipv6/conf/{port}/disable_ipv6"
            node.configure("sh", "-c", f"test ! -e {quiet} || echo 1 > {quiet}")
            node.configure(
                "ip", "-batch", "-",
                batch=f"link set {port} address {own} mtu 1500 txqueuelen 10000 up\n"
                f"neigh replace {peer} lladdr {other} dev {port} nud permanent\n"
                f"route replace {peer}/32 dev {port} src {source}\n",
            )  # fmt: skip
            words = [word for offload in _OFFLOADS for word in (offload, "off")]
            node.configure("ethtool", "-K", port, *words)

    def _emulate(self, number: int) -> None:
        command = [
            "setpriv", "--pdeathsig", "KILL", sys.executable, str(_EMULATOR),
            str(self.server.network), f"d{number}",
            str(self.devices[number].network), "up0", f"{self._seed}-{number}",
        ]  # fmt: skip
        pipe = subprocess.PIPE
        emulator = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        self._emulators.append(emulator)
        self._hear(number, "ready")

    def _tell(self, number: int, shape: LinkShape) -> None:
        stdin = self._emulators[number].stdin
        assert stdin is not None
        stdin.write(shape.to_json() + "\n")
        stdin.flush()
        self._hear(number, "shaped")

    def _hear(self, number: int, word: str) -> None:
        stdout = self._emulators[number].stdout
        assert stdout is not None
        if (said := stdout.readline().strip()) != word:
            raise RuntimeError(f"emulator of link {number}: said {said!r}, wanted {word!r}")
