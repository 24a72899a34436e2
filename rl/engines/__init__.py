"""What writes the turns of rollouts in place of the model in training: vLLM, in this process or on servers."""
