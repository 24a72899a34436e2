"""What detectors find in an image: objects by a checkpoint of transformers, lines of text by an OCR engine."""
