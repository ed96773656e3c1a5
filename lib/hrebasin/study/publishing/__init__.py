"""What readers get: published data sets, the page, the README's numbers, and their verification."""
