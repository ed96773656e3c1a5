"""The claims of the paper, each beside its statement and its rule, and the ledger of their verdicts."""
