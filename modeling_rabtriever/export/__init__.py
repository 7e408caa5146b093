"""Folders that other libraries load without custom code. Needs the extra `export`."""

from .cross_encoder import export_cross_encoder

__all__ = ["export_cross_encoder"]
