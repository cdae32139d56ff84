"""The page as a user has it: a browser that nobody sees."""
