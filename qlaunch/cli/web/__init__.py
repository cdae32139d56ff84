"""`qlaunch web`: one page with all machines, and a console for each in the browser."""
