"""Folders that other libraries load without custom code. Needs the extra `export`; `onnx_towers` the extra `onnx`."""

from .cross_encoder import export_cross_encoder, pair_limits
from .serving import cross_encoder_engines, engines_text, graph_engines, tower_engines
from .towers import export_sentence_transformers

__all__ = [
    "cross_encoder_engines",
    "engines_text",
    "export_cross_encoder",
    "export_sentence_transformers",
    "graph_engines",
    "pair_limits",
    "tower_engines",
]
