"""``--portable``: the same sums, and so one hash, on every x86-64 processor with AVX2."""

import os
import sys

from graft.errors import ConfigError

# Each library chooses code by the processor when it is loaded; these hold it to AVX2.
ENVIRONMENT = {
    "GRAFT_PORTABLE": "1",  # the compiled trainer, for x86-64-v3
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL takes other paths on AMD than on Intel, whose results only this mode makes the same.
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    # The names of numpy 2.4, then those before; a name that numpy does not know is left out.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR "
    "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL",
}


def restart_portably(accelerator: str, ray_address: str | None) -> None:
    """Replace this process by one that has ``ENVIRONMENT``; return in that one.

    Its workers inherit the environment. Raises ConfigError where sums cannot be held the same:
    on an accelerator, on a cluster's machines, on a processor without AVX2.
    """
    if accelerator != "cpu" or ray_address is not None:
        got = ray_address or accelerator
        raise ConfigError(f"portable: got {got}, wanted the processor of this machine")
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.environ.update(ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "graft_origin", *sys.argv[1:]])  # noqa: S606
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "AVX2":
        raise ConfigError(f"portable: got a processor with {capability}, wanted x86-64 with AVX2")
