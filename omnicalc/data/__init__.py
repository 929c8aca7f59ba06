"""Data sets: readers of public ones, and builders of our own."""
