"""One network out of many: trees, MergeMany, averages, REPAIR, and the registry of methods."""
