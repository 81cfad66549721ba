"""What takes trained networks apart: pure functions, what reads and writes their results, figures."""
