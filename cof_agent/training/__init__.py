"""What SFT and RL share: configuration, models, checkpoints, and the agent that looks at them while they train."""
