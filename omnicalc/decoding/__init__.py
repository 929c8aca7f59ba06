"""Decoders: from one moment of a molecule to several later ones at once, without integrating in between."""
