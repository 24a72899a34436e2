"""Supervised fine-tuning: trajectories teach a model to zoom and answer (TRL, PEFT, DeepSpeed)."""
