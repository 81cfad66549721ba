"""One module for each command: `fathom NAME` calls the function NAME of the module NAME."""
