"""A build requirement that nobody published as a wheel."""
