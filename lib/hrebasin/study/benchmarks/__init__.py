"""Speed beside the alternatives, and growth with the number of networks."""
