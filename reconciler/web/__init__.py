"""HTTP: the local socket and the open address of a running primary."""
