"""The claims of the five papers: their data, the runs that decide them, the grades, the pages."""
