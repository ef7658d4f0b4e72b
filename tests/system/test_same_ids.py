"""One architecture and one seed give the same models by both engines, in Python and deployed; and
a deployed device is sent a shared backbone once."""

import subprocess
from collections.abc import Callable

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[bytes]"]
ARCHITECTURE = "own_networks:Transformer"
DOMAINS = ("user-000000", "user-000001")
