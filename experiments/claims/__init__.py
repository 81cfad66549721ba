"""The claims of the five papers: what they say, the runs that decide them, how they are graded, the pages about them."""
