"""Networks that tell what people see in images: features, and distances between images."""
