"""Is it the same machine? libvirt's QEMU and qlaunch's, made from one XML and asked what they are.

`python -m tests.compare FOLDER` compares every XML file in a folder: tests/README.md.
"""
