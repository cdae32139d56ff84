"""What qlaunch costs, against a floor that does the same with nothing between: `make bench`."""
