"""Conversations to train on: rows in the words of their sets, the boxes in their texts, and their lengths."""
