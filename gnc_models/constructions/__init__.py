"""Codes that are written down by rule. Knows numpy; does not know torch, margins or search."""
