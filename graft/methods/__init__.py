"""The methods and their registry; a method turns a training task into a model."""

from graft.methods.base import (
    INITIAL,
    FitMany,
    Method,
    add_method,
    added_methods,
    find_method,
    for_output,
    methods_by_name,
    require_deployable,
    require_output,
    require_private_training,
    with_method_sections,
)

__all__ = [
    "INITIAL",
    "FitMany",
    "Method",
    "add_method",
    "added_methods",
    "find_method",
    "for_output",
    "methods_by_name",
    "require_deployable",
    "require_output",
    "require_private_training",
    "with_method_sections",
]
