"""Images and what they are made of, as the OCI specifications have them."""
