"""The claims of the papers: their data, the runs that decide them, the grades, the pages."""
