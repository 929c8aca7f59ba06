"""Energies and forces from quantum chemistry: GFN2-xTB (tblite) and density-functional theory (PySCF)."""
