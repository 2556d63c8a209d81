"""Example sweeps, and the public data that their trainings start from."""
