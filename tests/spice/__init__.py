"""SPICE as a user has it: real clients, in processes of their own."""
