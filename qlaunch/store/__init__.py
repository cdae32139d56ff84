"""Where qlaunch keeps what: profiles, images, state, sockets. Imports nothing by itself: the thin
client reads `paths` only."""
