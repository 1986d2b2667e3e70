"""Write what a run reports: metrics, figures, tables, TensorBoard events and the HTML page."""
