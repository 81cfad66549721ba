"""What a first hour on a machine has to answer: a file for each question, see ``fathom check``."""
