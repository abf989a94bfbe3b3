"""Signed receipts of use: their one form, their chains, how books merge, and how anyone checks them."""
