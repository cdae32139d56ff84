"""What the user wrote: the profile, its model and how it is read."""
