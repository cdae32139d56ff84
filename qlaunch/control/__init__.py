"""The words that client and supervisor speak over the control socket."""
