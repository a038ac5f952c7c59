"""An image from its Dockerfile, its environment and its context, without a daemon."""
