"""Telling people elsewhere what became otherwise: what there is to tell, its words, and how it gets there."""
