"""Shared by the trainers of teacher and student: trainer base, checkpoints, processes, the folder of a stage.

Needs the extra "train".
"""
