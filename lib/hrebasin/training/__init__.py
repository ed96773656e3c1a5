"""Training from named seeds: recipe, batches, and banks of networks trained together."""
