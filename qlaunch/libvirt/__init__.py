"""Coming from libvirt, without libvirt: its XML as profiles and networks, and profiles as its XML.

Pure: no file is read here and nothing is asked of this computer.
"""
