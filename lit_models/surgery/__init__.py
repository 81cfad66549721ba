"""What takes networks apart: a network as a chain of links."""
