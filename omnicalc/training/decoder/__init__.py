"""Training of decoders of future frames: recipe, batches from trajectories, loop, export."""
