"""HaT-style expansion (arXiv 2412.04060): mixer, dictionary, and the method that trains by them."""

from graft.methods.hat.method import METHODS

__all__ = ["METHODS"]
