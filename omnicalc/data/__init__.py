"""Data sets: readers of public ones, builders of our own, and labels from quantum chemistry."""
