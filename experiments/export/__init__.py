"""A trained network as a file for another runtime: one module for each format, and what they share."""
