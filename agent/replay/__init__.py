"""Traces of jobs, and replaying them through the real decision core in virtual time."""
