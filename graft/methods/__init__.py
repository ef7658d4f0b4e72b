"""The methods, one file each, and the one registry; a method turns a training task into a model."""

from graft.methods.base import INITIAL, Method
from graft.methods.registry import find_method, methods_by_name

__all__ = ["INITIAL", "Method", "find_method", "methods_by_name"]
