"""Write what a run reports: metrics, figures, tables, TensorBoard events and the HTML page."""

import matplotlib

# One style, whatever the user's matplotlibrc says. Figures are drawn without pyplot, so MPLBACKEND has no effect.
matplotlib.rcdefaults()
matplotlib.rcParams["text.parse_math"] = False  # a $ in a class name is a $
