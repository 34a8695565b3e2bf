"""From files on disk to endless batches of real images."""
