"""Labelled images: torchvision's data sets, the shipped sample, folders and archives."""
