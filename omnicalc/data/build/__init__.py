"""Structures from recipes: molecules, clusters, distortions and carved spheres, sampled by GFN2-xTB."""
