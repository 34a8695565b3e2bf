"""The training loop and all that it needs: configuration, state, step, checkpoints."""
