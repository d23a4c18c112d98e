"""What maintainers run: the makers of the pictures. See tools/README.md."""
