"""What the trainers of teacher and student share: trainer base, checkpoints, processes, machine, a stage's folder.

Of the extra "train", but for `machine`.
"""
