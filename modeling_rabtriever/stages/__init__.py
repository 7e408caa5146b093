"""The stages of a run, as programs: options and recipes in, a folder of the run out. They call the other rooms.

Called by `rabtriever`, and by the scripts in `training/` of a clone.
"""
