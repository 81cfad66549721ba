"""Recipes of Bag of Tricks, and the plan by which the effects of all tricks are estimated at once."""
