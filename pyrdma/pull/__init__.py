"""Pulling an image from several sources: what to ask of whom (pure), and the doing of it."""
