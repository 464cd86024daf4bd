"""Tests of `mux.web`."""
