"""Folders that other libraries load without custom code. Needs the extra `export`; `onnx_towers` the extra `onnx`."""

from .cross_encoder import export_cross_encoder, pair_limits
from .serving import server_limits
from .towers import export_sentence_transformers

__all__ = ["export_cross_encoder", "export_sentence_transformers", "pair_limits", "server_limits"]
