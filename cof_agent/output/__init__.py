"""What is said to people, and how text that others wrote is made harmless in it."""
