"""Machines as people have them, for system tests: a tiny run, proxies, namespaces."""

import os
import shutil
import subprocess
import sys

ROOT = sys.platform == "linux" and os.getuid() == 0
NAMESPACES = bool(
    ROOT and shutil.which("unshare") and not subprocess.call(["unshare", "-m", "true"])
)
TINY = (
    "simulate", "--domains", "4", "--rounds", "1", "--set", "world.windows_per_domain=60",
    "--set", "training.max_steps=2", "--set", 'comparisons=["label-only"]', "--workers", "1",
    "--out",
)  # fmt: skip
PROXIES = dict.fromkeys(
    (
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
        "grpc_proxy", "ftp_proxy",
    ),
    "http://127.0.0.1:9",
)  # fmt: skip
