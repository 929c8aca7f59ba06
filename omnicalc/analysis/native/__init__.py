"""Counting of distances in C++, used where it was built; MDAnalysis does the work elsewhere, with the same result."""
