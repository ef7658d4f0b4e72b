"""The methods, one file each, and the one registry; a method turns a lesson into a model."""

from graft.methods.base import FOUNDER, Method
from graft.methods.registry import find_method, methods_by_name

__all__ = ["FOUNDER", "Method", "find_method", "methods_by_name"]
