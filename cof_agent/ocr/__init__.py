"""Text in pictures: engines that read it with its place, and questions with known answers that are made of it."""

from cof_agent.ocr.lines import Engine, Line

__all__ = ["Engine", "Line"]
