"""Network files + what the kernel has -> every decision about bridges, rules and names.

`decide` gives a network its values, `desired` is what should be, `rules` and `names` are the texts
for nftables and dnsmasq, `steps` is the way from what is to what should be. Nothing here is done.
"""
