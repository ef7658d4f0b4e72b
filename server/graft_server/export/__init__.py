"""Finished models out of a run's folder, for other programs: ONNX files, and folders in the way
of the Hugging Face hub."""

from graft_server.export.finished import FinishedModel, find_model
from graft_server.export.model_folder import LoadedModel, load_model, write_model_folder
from graft_server.export.onnx_file import largest_difference, write_onnx

__all__ = [
    "FinishedModel",
    "LoadedModel",
    "find_model",
    "largest_difference",
    "load_model",
    "write_model_folder",
    "write_onnx",
]
