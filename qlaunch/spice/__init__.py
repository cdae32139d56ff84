"""A small SPICE client: no picture, no sound, only the agent's line. Sizes and numbers are those of
spice-protocol (`protocol.h`, `vd_agent.h`)."""
