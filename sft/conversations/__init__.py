"""Conversations in the words of their sets: their rows, and the boxes in their texts."""
