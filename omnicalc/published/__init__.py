"""Published weights of each family, from their files or their hub to weights folders under names of ours."""
