"""Which units of two networks belong together: weight matching on linear assignments."""
