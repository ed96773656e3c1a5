"""What the notebooks 00, 10, 11 and 30 show: a landscape, an attacked image, an explorer, federated clients."""
