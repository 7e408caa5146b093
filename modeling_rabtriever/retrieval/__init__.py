"""What lies around the models when they are searched with: document state on disk."""

from .prefix_files import PrefixFiles

__all__ = ["PrefixFiles"]
