"""What one does with the latent space of a trained generator."""
