"""Tensor functions without parameters: a public function, and its plain-PyTorch reference."""
