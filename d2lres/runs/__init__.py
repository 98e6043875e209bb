"""The record of a run: what happened in it, kept so that it can go on."""
