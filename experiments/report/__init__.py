"""One page of HTML about one or several runs, which needs nothing beside it."""
