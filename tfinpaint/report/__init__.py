"""What a run leaves behind to read and to look at: values in, files out."""

import matplotlib

# One style, whatever the user's matplotlibrc says. Figures are drawn without pyplot: by Agg, whatever MPLBACKEND says.
matplotlib.rcdefaults()
matplotlib.rcParams["text.parse_math"] = False  # a $ in a class name is a $
