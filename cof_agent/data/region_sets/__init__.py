"""Public sets with regions as samples to train on: one small builder each, and the instructions that they draw from."""
