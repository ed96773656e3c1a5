"""How a run happens: plan, workflow, notebooks, clusters and JupyterLab."""
