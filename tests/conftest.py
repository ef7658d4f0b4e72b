"""Makes ``fakes`` importable from every room of the tests, and keeps tiny networks quick."""

import os

# Before anything imports torch: on networks this small, threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
