"""Tables and figures from trajectories. Knows files and atoms, never models, never torch."""
