"""The study of the paper: settings, data sets, claims, questions, figures, and how they are run and published."""
