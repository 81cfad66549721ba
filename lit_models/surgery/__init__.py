"""What takes networks apart or folds them: chains of links, merged copies."""
