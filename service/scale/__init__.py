"""Thin adapters to Ray: archives on Ray Data, replicas on Ray Serve, adaptation on a fleet."""
