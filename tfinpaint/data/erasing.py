"""Fill the hole that a mask leaves in an image."""

from __future__ import annotations
