"""What every benchmark writes: ``results/summary.json``, a record a figure."""

from graft.bench.figures_file import figure, machine, write_summary

__all__ = ["figure", "machine", "write_summary"]
