"""Figures and tables of a cycle, from its selection and its report."""
