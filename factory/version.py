"""The one place where the product's version is written."""

VERSION = "0.1.0"
