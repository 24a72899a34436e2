"""Procedural high-resolution scenes with ground truth: the benchmark that needs no download.

`scene` says what is there, `draw` makes pixels of it, `questions` asks about it, `oracle` knows the ideal
trajectory, `write` puts samples on disk.
"""
