"""Distances between sets of images in the space of features, and a classifier that gives them."""
