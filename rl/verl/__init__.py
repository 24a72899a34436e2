"""The agent for verl 0.9.1, in place of TRL's trainer. Here `verl` is verl's own package."""
